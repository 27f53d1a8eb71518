"""Run through a whole training without a discriminator in seconds, on generated images."""

import sys

from one_step.train import main

if __name__ == "__main__":
    main(["fake", *sys.argv[1:]])
