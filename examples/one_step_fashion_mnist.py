"""Train a small one-step generator on Fashion-MNIST, without a discriminator, in minutes on a CPU."""

import sys

from one_step.command import main

if __name__ == "__main__":
    main(["fashion-mnist", *sys.argv[1:]])
