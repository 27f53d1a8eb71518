"""Run through a whole training of the scaled-MMD paper in seconds, on generated images: to try first."""

from arbel2018.train import script

if __name__ == "__main__":
    script("fake", str(__doc__))
