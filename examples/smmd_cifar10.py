"""Train the networks of the scaled-MMD paper on CIFAR-10 at 32 x 32 pixels (Arbel et al. 2018, Section 4)."""

from arbel2018.train import script

if __name__ == "__main__":
    script("cifar10", str(__doc__))
