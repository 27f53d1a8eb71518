"""
Bandwidth and saturation
========================

A kernel compares samples at one length scale, its bandwidth ``sigma``. If ``sigma`` is much smaller than the distances
between the samples, every kernel value is 0. If it is much larger, every kernel value is 1. In both cases MMD² and its
gradient vanish, although the samples differ.
"""

# %%
# Two samples in 16 dimensions differ by a small shift. ``MMDLoss.terms`` returns the share of *saturated* pairs, whose
# gradient has nearly vanished. Bandwidths at both ends cause a ``UsageWarning``, which is turned off here.

import warnings

import matplotlib.pyplot as plt
import torch

from torch_mmd_losses import MMDLoss, RBFKernel, UsageWarning, median_distance, mmd2

warnings.simplefilter("ignore", UsageWarning)

real = torch.randn(256, 16)
fake = torch.randn(256, 16) + 0.5
sigmas = torch.logspace(-1, 2, 31).tolist()
values, gradients, saturated = [], [], []
for sigma in sigmas:
    moving = fake.clone().requires_grad_()
    value = mmd2(real, moving, RBFKernel(sigma))
    (gradient,) = torch.autograd.grad(value, moving)
    values.append(value.detach())
    gradients.append(gradient.norm())
    terms = MMDLoss(RBFKernel(sigma), -1).terms(real=real, fake=fake)
    saturated.append(terms.saturated)

# %%
# The median distance between samples is a good bandwidth: the value and the gradient are near their maximum, and hardly
# any pair is saturated.

median = median_distance(real, fake)
print(f"median distance: {median:.2f}")

figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.7), sharex=True)
axes[0].semilogx(sigmas, values)
axes[0].set_title("MMD²")
axes[1].semilogx(sigmas, gradients)
axes[1].set_title("norm of the gradient")
axes[2].semilogx(sigmas, saturated)
axes[2].set_title("saturated pairs")
for ax in axes:
    ax.axvline(median, color="tab:orange", linestyle="--", label="median distance")
    ax.set_xlabel("sigma")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center")
plt.show()

# %%
# In a discriminator, multiplying the scores by a number has the same effect as dividing ``sigma`` by that number. So
# the size of the scores matters as much as the bandwidth.
