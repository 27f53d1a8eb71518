"""The paper's experiments, and two small ones.

Of the 16 pairs of learning rates that the paper tried, each has the one in the authors' script of the data set.
"""

from __future__ import annotations

from dcgan.configuration import Configuration

PRESETS = {
    "cifar10": Configuration(),
    "stl10": Configuration(dataset="stl10", size=48, lr_discriminator=2e-4),
    "celeba": Configuration(dataset="celeba", size=64, lr_discriminator=1e-4),
    "lsun": Configuration(dataset="lsun", size=64, lr_discriminator=2e-4, lr_generator=1e-4),
    # Reduced so that one CPU core takes ten minutes.
    "fashion-mnist": Configuration(
        dataset="fashion-mnist",
        channels=1,
        width=16,
        lr_generator=5e-4,
        iterations=2000,
        ema_decay=0.99,
        log_every=20,
        sample_every=500,
        checkpoint_every=500,
    ),
    # Learns nothing, but runs through everything in seconds.
    "fake": Configuration(
        dataset="fake",
        width=2,
        batch_size=4,
        iterations=20,
        log_every=5,
        sample_every=10,
        checkpoint_every=10,
    ),
}
