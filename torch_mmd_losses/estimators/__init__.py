"""Estimators of MMD^2 and of its variance."""
