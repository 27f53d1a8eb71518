"""Kernels, and the contract between them and the passes over pairs of samples."""
