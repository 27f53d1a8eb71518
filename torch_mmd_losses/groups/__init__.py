"""MMD^2 of weighted samples and of many groups of samples in one call."""
