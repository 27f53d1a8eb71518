"""Two-sample and three-sample tests with MMD."""
