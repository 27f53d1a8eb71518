"""Train the repulsive-loss paper's DCGAN on LSUN bedrooms at 64 x 64 pixels (Wang et al. 2019, Section 5)."""

from wang2019.train import script

if __name__ == "__main__":
    script("lsun", str(__doc__))
