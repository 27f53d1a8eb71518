"""
True and reshaped norm of a convolution
=======================================

Spectral normalisation divides a weight by its norm. For a convolution, the usual implementation uses the norm of the
weight *reshaped to a matrix*, which is not the norm of the convolution. ``conv_spectral_norm`` uses the norm of the
convolution.
"""

# %%
# The norm of the convolution is the largest factor by which it can stretch an image. For a small layer it can be
# computed exactly: apply the layer to every basis image, and take the largest singular value of the resulting matrix.

import matplotlib.pyplot as plt
import torch
from torch import nn

from torch_mmd_losses import conv_spectral_norm

SIZE = 8


def exact_norm(layer, channels):
    basis = torch.eye(channels * SIZE**2).view(-1, channels, SIZE, SIZE)
    with torch.no_grad():
        without_bias = layer(basis) - layer(torch.zeros_like(basis[:1]))
    return float(torch.linalg.matrix_norm(without_bias.flatten(1), 2))


def reshaped_norm(layer):
    return float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2))


# %%
# The convolutions have 16 channels and several shapes. Their weights are those of PyTorch's initialisation, or
# smoothed: after training, too, neighbouring weights are similar.

shapes = {"3x3": (3, 1, 1), "4x4, stride 2": (4, 2, 1), "5x5": (5, 1, 2)}
rows = []
for name, (kernel, stride, padding) in shapes.items():
    for smooth in (False, True):
        layer = nn.Conv2d(16, 16, kernel, stride, padding)
        if smooth:
            with torch.no_grad():
                layer.weight.copy_(
                    layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight)
                )
        exact, reshaped = exact_norm(layer, 16), reshaped_norm(layer)
        conv_spectral_norm(layer, input_size=SIZE)
        label = f"{name},\n{'smooth' if smooth else 'random'}"
        rows.append((label, exact / reshaped, exact_norm(layer, 16)))
        print(f"{label!r}: norm {exact:.3f}, of the reshaped weight {reshaped:.3f}")

# %%
# Divided by the reshaped norm, a layer still stretches images by up to the square root of the number of output pixels that
# an input pixel reaches: 3, 2 and 5 here. Over eight layers such factors multiply. Divided by the norm of the convolution,
# a layer does not stretch images.

labels, by_reshaped, by_ours = zip(*rows, strict=True)
position = torch.arange(len(labels))
figure, ax = plt.subplots(figsize=(7.2, 3.2))
ax.bar(position - 0.2, by_reshaped, 0.4, label="divided by the reshaped norm")
ax.bar(position + 0.2, by_ours, 0.4, label="divided by the norm of the convolution")
ax.axhline(1, color="black", linestyle="--", linewidth=0.8)
ax.set(ylabel="true norm of the layer", xticks=position)
ax.set_xticklabels(labels, fontsize=8)
ax.legend()
plt.show()
