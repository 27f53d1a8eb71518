"""Train the repulsive-loss paper's DCGAN on STL-10 at 48 x 48 pixels (Wang et al. 2019, Section 5)."""

from wang2019.train import script

if __name__ == "__main__":
    script("stl10", str(__doc__))
