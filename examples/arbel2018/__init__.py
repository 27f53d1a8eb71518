"""The experiments of Arbel, Sutherland, Bińkowski, Gretton (2018), On gradient regularizers for MMD GANs."""

import training  # noqa: F401  # before other imports, so that all missing packages are named at once
