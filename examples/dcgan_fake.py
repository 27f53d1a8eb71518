"""Run every step of a training on generated images within seconds. Try this first on a new machine."""

import sys

from wang2019.train import main

if __name__ == "__main__":
    main(["fake", *sys.argv[1:]], str(__doc__))
