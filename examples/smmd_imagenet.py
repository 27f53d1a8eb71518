"""Train the networks of the scaled-MMD paper on ImageNet at 64 x 64 pixels (Arbel et al. 2018, Section 4)."""

from arbel2018.train import script

if __name__ == "__main__":
    script("imagenet", str(__doc__))
