"""The gradient-constrained MMD."""
