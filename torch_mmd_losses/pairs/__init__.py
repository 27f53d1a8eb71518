"""Sums of kernel values over pairs of samples, with their gradients."""
