"""Run every step of a training on generated images within seconds. Try this first on a new machine."""

from wang2019.train import script

if __name__ == "__main__":
    script("fake", str(__doc__))
