"""Run a whole training of a one-step generator in seconds, on random images."""

import sys

from one_step.command import main

if __name__ == "__main__":
    main(["fake", *sys.argv[1:]])
