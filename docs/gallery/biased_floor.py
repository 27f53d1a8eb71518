"""
The floor of the biased estimator
=================================

Many implementations of MMD return the *biased* estimate. It includes pairs of a sample and itself, so even for equal
distributions it stops at a positive number, its floor. A larger batch lowers the floor; training does not.
"""

# %%
# Both samples come from the same distribution, so MMD² is zero.

import matplotlib.pyplot as plt
import torch

from torch_mmd_losses import RBFKernel, mmd2

kernel = RBFKernel(4.0)
sizes = [8, 16, 32, 64, 128, 256, 512]
biased, unbiased = [], []
for n in sizes:
    pairs = [(torch.randn(n, 16), torch.randn(n, 16)) for _ in range(100)]
    biased.append(
        torch.stack([mmd2(x, y, kernel, estimator="biased") for x, y in pairs])
    )
    unbiased.append(torch.stack([mmd2(x, y, kernel) for x, y in pairs]))

# %%
# With batches of n samples each, the floor is 2 / n times one minus the mean kernel value of two samples. The unbiased
# estimate, the default, scatters around zero. About half of its values are negative, as they should be.

mean_kernel = kernel(torch.randn(2000, 16), torch.randn(2000, 16)).mean()
formula = [float(2 / n * (1 - mean_kernel)) for n in sizes]

figure, axes = plt.subplots(1, 2)
for ax, values, title in zip(
    axes, (biased, unbiased), ("biased", "unbiased"), strict=True
):
    means = torch.stack([value.mean() for value in values])
    deviations = torch.stack([value.std() for value in values])
    ax.errorbar(
        sizes, means, deviations, fmt="o", capsize=3, label="mean ± deviation"
    )
    ax.set(
        xscale="log",
        xticks=sizes,
        xlabel="samples in each batch",
        title=f'estimator="{title}"',
    )
    ax.set_xticklabels(sizes)
    ax.minorticks_off()
axes[0].plot(
    sizes, formula, color="black", linewidth=0.8, label="2 / n · (1 - E k)"
)
axes[0].set_ylabel("MMD² of equal distributions")
axes[1].axhline(0, color="black", linewidth=0.8, label="true value")
for ax in axes:
    ax.legend()
plt.show()
