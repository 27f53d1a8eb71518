"""Train a reduced DCGAN with the repulsive loss on Fashion-MNIST, in minutes on a CPU."""

import sys

from wang2019.train import main

if __name__ == "__main__":
    main(["fashion-mnist", *sys.argv[1:]], str(__doc__))
