"""The experiments of Arbel, Sutherland, Bińkowski, Gretton (2018), On gradient regularizers for MMD GANs."""
