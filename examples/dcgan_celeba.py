"""Train the repulsive-loss paper's DCGAN on CelebA at 64 x 64 pixels (Wang et al. 2019, Section 5)."""

import sys

from wang2019.train import main

if __name__ == "__main__":
    main(["celeba", *sys.argv[1:]], str(__doc__))
