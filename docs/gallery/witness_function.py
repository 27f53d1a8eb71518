"""
The witness function of two samples
===================================

MMD compares the means of one function under two distributions. This *witness function* is high where the first
distribution has more mass and low where the second has more. It shows where two samples differ.
"""

# %%
# The Gaussian and the Laplace distribution have the same mean and variance here. ``witness`` evaluates the function at
# any points, here on a grid.

import matplotlib.pyplot as plt
import torch

from torch_mmd_losses import RBFKernel, witness

gaussian = torch.distributions.Normal(0.0, 1.0)
laplace = torch.distributions.Laplace(0.0, 0.5**0.5)
real, fake = gaussian.sample((2000, 1)), laplace.sample((2000, 1))

grid = torch.linspace(-4, 4, 201).unsqueeze(1)
values = witness(grid, real=real, fake=fake, kernel=RBFKernel(0.3))

# %%
# The Laplace distribution has more mass at zero and in the tails, so the function is negative there.

figure, ax = plt.subplots(figsize=(7.2, 2.8))
ax.plot(grid, gaussian.log_prob(grid).exp(), label="real: Gaussian")
ax.plot(grid, laplace.log_prob(grid).exp(), label="fake: Laplace")
ax.plot(grid, 3 * values, "k", label="3 x witness")
ax.axhline(0, color="gray", linewidth=0.5)
ax.set_ylim(top=1.0)
ax.legend(loc="upper right", fontsize=8)
plt.show()

# %%
# In two dimensions, the fake sample misses one of four clusters and draws another one too often.

centres = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
real = centres[torch.randint(4, (400,))] + 0.3 * torch.randn(400, 2)
fake = centres[torch.tensor([0, 1, 1, 2])[torch.randint(4, (400,))]]
fake = fake + 0.3 * torch.randn(400, 2)

axis = torch.linspace(-2.2, 2.2, 80)
points = torch.cartesian_prod(axis, axis)
values = witness(points, real=real, fake=fake, kernel=RBFKernel(0.5))
figure, ax = plt.subplots(figsize=(7.2, 3.6))
limit = float(values.abs().max())
contours = ax.contourf(
    axis, axis, values.view(80, 80).T, 20, cmap="RdBu", vmin=-limit, vmax=limit
)
ax.scatter(*real.T, s=3, color="navy", label="real")
ax.scatter(*fake.T, s=3, color="darkred", label="fake")
ax.set(aspect="equal", xlim=(-2.2, 2.2), ylim=(-2.2, 2.2))
ax.legend(loc="lower right", fontsize=8, frameon=True, markerscale=2)
figure.colorbar(contours, ax=ax, label="witness")
plt.show()
