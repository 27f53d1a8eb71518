"""The experiments of Arbel, Sutherland, Bińkowski, Gretton (2018), On gradient regularizers for MMD GANs."""

import training  # noqa: F401  # names all packages that are missing, before one of them is imported
