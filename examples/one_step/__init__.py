"""One-step generators trained by MMD on frozen features, without a discriminator."""

import training  # noqa: F401  # names all missing packages before one of them is imported
