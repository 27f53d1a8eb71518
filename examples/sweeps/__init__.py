"""Sweeps over the settings of a training script, which is run as a command: one idea in each file, and no PyTorch."""
