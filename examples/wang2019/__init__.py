"""The experiments of Wang, Sun, Halgamuge (2019), Improving MMD-GAN Training with Repulsive Loss Function."""

import training  # noqa: F401  # before other imports, so that all missing packages are named at once
