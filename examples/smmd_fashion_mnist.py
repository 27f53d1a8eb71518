"""Train reduced networks by the methods of the scaled-MMD paper on Fashion-MNIST, in minutes on a CPU."""

from arbel2018.train import script

if __name__ == "__main__":
    script("fashion-mnist", str(__doc__))
