"""One-step generators that are trained by MMD on frozen features, without a discriminator."""

import training  # noqa: F401  # names all packages that are missing, before one of them is imported
