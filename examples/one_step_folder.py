"""Train a one-step generator on the images in the folder --data-root, without a discriminator."""

import sys

from one_step.command import main

if __name__ == "__main__":
    main(["folder", *sys.argv[1:]])
