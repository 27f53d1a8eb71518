"""The experiments of Wang, Sun, Halgamuge (2019), Improving MMD-GAN Training with Repulsive Loss Function."""

import training  # noqa: F401  # names all packages that are missing, before one of them is imported
