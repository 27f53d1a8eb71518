"""
MMD flow
========

Particles that follow the gradient of the witness function reduce MMD² to a target. ``witness_gradient`` computes this
gradient. Without a network, the flow shows how far the gradient of MMD leads and where it gets stuck.
"""

# %%
# The target has two parts, and the particles start near one of them.

import matplotlib.pyplot as plt
import torch

from torch_mmd_losses import RBFKernel, mmd2, witness_gradient

angle = 3.14159 * torch.rand(200)
moon = torch.stack([angle.cos(), angle.sin()], 1)
target = torch.cat([moon, -moon + torch.tensor([1.0, 0.4])]) + 0.05 * torch.randn(
    400, 2
)
start = torch.tensor([-1.2, 1.2]) + 0.2 * torch.randn(300, 2)
kernel, judge = RBFKernel(0.2), RBFKernel(1.0)

# %%
# **Noise helps.** The kernel is flat beyond a few ``sigma``, so particles far from the target hardly move. Arbel et al.
# (2019) evaluate the gradient at points with added noise, which decreases to zero.


def flow(noise, steps=1000, rate=0.2):
    particles, shown, values = start.clone(), {}, []
    for step in range(steps + 1):
        if step in (0, 50, 200, steps):
            shown[step] = particles
        values.append(mmd2(target, particles, judge, estimator="biased"))
        level = noise * (1 - step / steps)
        points = particles + level * torch.randn_like(particles)
        particles = particles + rate * witness_gradient(
            points, real=target, fake=particles, kernel=kernel
        )
    return shown, values


figure, axes = plt.subplots(2, 4, figsize=(7.2, 3.6), sharex=True, sharey=True)
curves = {}
for row, noise in zip(axes, (0.0, 1.0), strict=True):
    shown, curves[noise] = flow(noise)
    first, last = curves[noise][0], curves[noise][-1]
    print(f"noise {noise}: MMD² {first:.4f} at the start, {last:.4f} at the end")
    for ax, (step, particles) in zip(row, shown.items(), strict=True):
        ax.scatter(*target.T, s=1, color="lightgray")
        ax.scatter(*particles.T, s=2, color="C1" if noise else "C0")
        ax.set(aspect="equal", xlim=(-1.8, 2.4), ylim=(-1.2, 1.8))
        ax.set_title(f"step {step}", fontsize=9)
    row[0].set_ylabel(f"noise {noise}")
plt.show()

# %%
# The picture shows MMD² of both flows over time, with a wider kernel that reaches the particles left behind.

figure, ax = plt.subplots(figsize=(7.2, 2.6))
for noise, values in curves.items():
    ax.semilogy(values, label=f"noise {noise}")
ax.set(xlabel="step", ylabel="MMD², biased")
ax.legend()
plt.show()
