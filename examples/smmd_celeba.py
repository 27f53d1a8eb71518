"""Train the networks of the scaled-MMD paper on CelebA at 160 x 160 pixels (Arbel et al. 2018, Section 4)."""

from arbel2018.train import script

if __name__ == "__main__":
    script("celeba", str(__doc__))
