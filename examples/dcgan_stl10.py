"""Train the repulsive-loss paper's DCGAN on STL-10 at 48 x 48 pixels (Wang et al. 2019, Section 5)."""

import sys

from wang2019.train import main

if __name__ == "__main__":
    main(["stl10", *sys.argv[1:]], str(__doc__))
