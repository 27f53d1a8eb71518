"""Train a small one-step generator on Fashion-MNIST, without a discriminator: minutes on a CPU, and no download."""

import sys

from one_step.train import main

if __name__ == "__main__":
    main(["fashion-mnist", *sys.argv[1:]])
