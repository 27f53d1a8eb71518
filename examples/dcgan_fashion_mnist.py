"""Train a reduced DCGAN with the repulsive loss on Fashion-MNIST, in minutes on a CPU."""

from wang2019.train import script

if __name__ == "__main__":
    script("fashion-mnist", str(__doc__))
