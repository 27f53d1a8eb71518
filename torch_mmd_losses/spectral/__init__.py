"""Spectral normalisation of linear and convolutional layers, which does not depend on MMD."""
