"""Train the repulsive-loss paper's DCGAN on CIFAR-10 at 32 x 32 pixels (Wang et al. 2019, Section 5)."""

import sys

from wang2019.train import main

if __name__ == "__main__":
    main(["cifar10", *sys.argv[1:]], str(__doc__))
