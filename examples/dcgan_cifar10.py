"""Train the repulsive-loss paper's DCGAN on CIFAR-10 at 32 x 32 pixels (Wang et al. 2019, Section 5)."""

from wang2019.train import script

if __name__ == "__main__":
    script("cifar10", str(__doc__))
