"""One-step generators that are trained by MMD on frozen features, without a discriminator."""
