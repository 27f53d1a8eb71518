"""One update of both networks of Wang et al. in plain PyTorch, as a whole and in separately timed parts.

It is the simultaneous update of `wang2019.train` without Fabric, so that only the update is measured.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

sys.path.append(str(Path(__file__).parents[1]))  # for wang2019, also if a benchmark is run as a script

from training.batches import centred, positions
from training.sampling import MovingAverage
from wang2019.losses import make_loss
from wang2019.networks import make_discriminator, make_generator
from wang2019.presets import PRESETS as PRESETS
from wang2019.presets import Wang2019 as Wang2019
from wang2019.presets import resolved
from wang2019.train import BETAS

from torch_mmd_losses import MMDLoss

LEARNED_BY_PYTORCH = "pytorch"
"""The name of a norm: PyTorch's `spectral_norm` around each layer."""


class WangStep:
    """Both networks, their optimisers, the loss and the moving average of the generator.

    Args:
        settings: of the networks, of the loss and of the optimisers.
        norm: spectral norm of the discriminator's layers; `conv_spectral_norm`'s methods, `"none"` or PyTorch's.
        device: where they are.
        dtype: of autocast.
        foreach: whether Adam updates all parameters in a few operators; None leaves it to PyTorch.
    """

    def __init__(
        self,
        settings: Wang2019,
        norm: str = "pico",
        *,
        device: torch.device = torch.device("cpu"),  # noqa: B008
        dtype: torch.dtype = torch.float32,
        foreach: bool | None = None,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings = chosen = resolved(settings)
        self.device, self._dtype = device, dtype
        self.layout = torch.channels_last if chosen.channels_last else torch.contiguous_format
        self.generator: nn.Module = make_generator(
            chosen.size, noise=chosen.noise, channels=chosen.channels, width=chosen.width
        ).to(device)
        self.discriminator: nn.Module = make_discriminator(
            chosen.size,
            scores=chosen.scores or 1,
            channels=chosen.channels,
            width=chosen.width,
            method="none" if norm == LEARNED_BY_PYTORCH else norm,
            scale=chosen.scale or 1.0,
        ).to(device)
        if norm == LEARNED_BY_PYTORCH:
            for layer in self.discriminator.children():
                if hasattr(layer, "weight"):
                    parametrizations.spectral_norm(layer)
        for network in (self.generator, self.discriminator):
            network.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.average = MovingAverage(self.generator, chosen.ema_decay)
        if chosen.compile:
            self.generator.compile(dynamic=False)
            self.discriminator.compile(dynamic=False)
        self.loss = make_loss(chosen.loss, lambda_=chosen.lambda_)
        self.of_d, self.of_g = list(self.discriminator.parameters()), list(self.generator.parameters())
        self.adam_d = torch.optim.Adam(self.of_d, chosen.lr_discriminator, BETAS, foreach=foreach)
        self.adam_g = torch.optim.Adam(self.of_g, chosen.lr_generator, BETAS, foreach=foreach)

    def __call__(self, real: Tensor) -> None:
        """Update both networks with real images `(n, channels, size, size)` in [-1, 1]."""
        with self.autocast():
            fake = self.generator(self.noise(len(real)))
            scores = self.score(real, fake)
        losses = self.loss.both(*scores.chunk(2))
        self.adam_d.zero_grad()
        losses.discriminator.backward(inputs=self.of_d, retain_graph=True)
        self.adam_g.zero_grad()
        losses.generator.backward(inputs=self.of_g)
        self.update()

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context of the forwards, which changes nothing for float32."""
        if self._dtype == torch.float32:
            return nullcontext()  # also for the meta device, which autocast does not know
        return torch.autocast(self.device.type, self._dtype)

    def noise(self, count: int) -> Tensor:
        """Return standard normal noise `(count, dimension)`."""
        return torch.randn(count, self.settings.noise, device=self.device)

    def images(self) -> Tensor:
        """Return a batch of random images in [-1, 1], made on the CPU."""
        shape = (self.settings.batch_size, self.settings.channels, self.settings.size, self.settings.size)
        return torch.rand(shape).mul(2).sub(1).to(self.device)

    def score(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the scores of real and of generated images from one forward."""
        return self.discriminator(torch.cat([real, fake]).contiguous(memory_format=self.layout))

    def update(self) -> None:
        """Let both optimisers take their step, and the average follow."""
        self.adam_d.step()
        self.adam_g.step()
        self.average.update_parameters(self.generator)

    def parts(self, images: int) -> dict[str, Callable[[], object]]:
        """Return the parts of a step, each to be run alone; the discriminator should have no norm.

        Args:
            images: how many there are to take batches of.
        """
        assert isinstance(self.loss, MMDLoss)
        count = self.settings.batch_size
        pixels = torch.randint(0, 256, (images, *self.images().shape[1:]), dtype=torch.uint8)
        indices = positions(images, count, seed=self.settings.seed)
        real, noise = self.images(), self.noise(count)
        along_images, fake = torch.randn_like(real), torch.randn_like(real).requires_grad_()

        def scored() -> Tensor:
            with self.autocast():
                return self.score(real, fake)

        seen = scored().detach()
        along_scores = torch.randn_like(seen)
        scores = [half.clone().requires_grad_() for half in seen.chunk(2)]
        for weight in (*self.of_d, *self.of_g):
            weight.grad = torch.randn_like(weight)

        def generator() -> None:
            with self.autocast():
                drawn = self.generator(noise)
            torch.autograd.grad(drawn, self.of_g, along_images.to(drawn.dtype))

        def discriminator() -> None:
            found = scored()
            torch.autograd.grad(found, self.of_d, along_scores, retain_graph=True)
            torch.autograd.grad(found, fake, along_scores)

        def loss() -> None:
            losses: Any = self.loss.both(*scores)
            torch.autograd.grad(losses.discriminator, scores, retain_graph=True)
            torch.autograd.grad(losses.generator, scores)

        return {
            "data": lambda: centred(pixels[next(indices)].to(self.device)),
            "generator": generator,
            "discriminator": discriminator,
            "loss": loss,
            "updates": self.update,
        }
