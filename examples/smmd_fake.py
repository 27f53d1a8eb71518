"""Run every step of a training of the scaled-MMD paper on generated images within seconds. Try this first."""

from arbel2018.train import script

if __name__ == "__main__":
    script("fake", str(__doc__))
