"""Handwritten digits of 8x8 pixels, and how far generated ones are from them."""

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F


@cache
def load():
    """Return images `(1797, 1, 8, 8)` in [-1, 1] and labels, in one fixed random order."""
    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(bunch.images).float().div(8).sub(1).unsqueeze(1)
    return images[order], torch.from_numpy(bunch.target)[order].long()


def halves():
    """Return one half of the images to train on and the other half to judge by, 898 each."""
    images, _ = load()
    return images[:-1:2], images[1::2]


@torch.no_grad()
def pooled_pixel_mmd2(images):
    """Return the biased MMD^2 to held-out digits on images pooled to 4x4 pixels, in float64, without the library.

    The kernel is Gaussian, and sigma is the median distance of the digits. The value is 0.001 for other real digits,
    0.07 for the mean digit, 0.3 for copies of one digit, 0.7 for noise and 1.0 for untrained generators.
    """
    real, fake = (F.avg_pool2d(x.double(), 2).flatten(1) for x in (halves()[1], images))
    sigma = torch.pdist(real).median()

    def mean_kernel(a, b):
        return torch.exp(-torch.cdist(a, b).square() / (2 * sigma**2)).mean()

    return float(mean_kernel(real, real) - 2 * mean_kernel(real, fake) + mean_kernel(fake, fake))


@torch.no_grad()
def judge(generator, *shape):
    """Return the pooled-pixel MMD^2 of 1000 samples of a generator of noise `(n, *shape)`."""
    noise = torch.randn(1000, *shape, generator=torch.Generator().manual_seed(0))
    return pooled_pixel_mmd2(generator(noise).float())
