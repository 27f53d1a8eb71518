"""Spectral norms of layers, and layers normalised by them."""
