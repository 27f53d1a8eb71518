"""What the training scripts share: settings, a run's folder, checkpoints, data sets and batches."""

from training.requirements import need

need("filelock", "lightning_fabric", "PIL", "tqdm", "tyro", also=["torchvision"])
