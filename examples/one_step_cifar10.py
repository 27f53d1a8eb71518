"""Train a one-step generator on CIFAR-10, without a discriminator."""

import sys

from one_step.command import main

if __name__ == "__main__":
    main(["cifar10", *sys.argv[1:]])
