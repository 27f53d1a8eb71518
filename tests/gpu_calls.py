"""Calls of every public function, for tests that it keeps to its device and reads no number.

A new public function needs a line in `CALLS`; a new kernel, one in `cases.CASES`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from cases import CASES, scores
from reference_kinds import KINDS as REFERENCE_KINDS
from reference_kinds import taken_by
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from torch_mmd_losses import (
    Kernel,
    LaplaceKernel,
    LinearKernel,
    MMDLoss,
    MMDReference,
    PolynomialKernel,
    RationalQuadraticMix,
    RBFBKernel,
    RBFKernel,
    RBFMix,
    ScaledMMDLoss,
    cached_backward,
    conv_spectral_norm,
    distance_quantiles,
    drift,
    drift_loss,
    gradient_constrained_mmd2,
    gradient_penalty,
    grouped_mmd2,
    interpolation_points,
    kernel_sums,
    l2_penalty,
    median_distance,
    mmd2,
    mmd2_and_variance,
    mmd2_blocks,
    mmd2_fourier,
    mmd_test,
    ratio_to_real,
    relative,
    relative_mmd_test,
    spectral_norms,
    witness,
    witness_gradient,
)

SIZES = (64, 600)
"""Samples of each group: one dense matrix, and tiles."""

D = 8


class Samples(NamedTuple):
    """What a call may take: leaves that require gradients, on the device."""

    real: Tensor
    fake: Tensor
    other: Tensor
    images: Tensor
    """As many as there are real scores, `(n, 3)`."""


class Call(NamedTuple):
    """A call of a public function, and how many times its results can be differentiated.

    `run` takes :class:`Samples` and returns tensors in any nesting. Objects with state are made before, without a GPU.
    """

    run: Callable[[Samples], object]
    derivatives: int = 2
    sizes: tuple[int, ...] = SIZES
    without_gradients: bool = True


def estimators(function: Callable[..., object], kernels: dict[str, Kernel], **options: Any) -> dict[str, Call]:
    """Return a call `function(real, fake, kernel, **options)` for each kernel."""

    def call(name: str, kernel: Kernel) -> Call:
        return Call(lambda s: function(s.real, s.fake, kernel, **options), times(name))

    return {f"{name} {options or ''}": call(name, kernel) for name, kernel in kernels.items()}


def times(name: str) -> int:
    """Return how many times a kernel can be differentiated."""
    return 2 if name not in CASES or CASES[name].smooth else 1


def critic(x: Tensor, scores: int = 4) -> Tensor:
    """Return scores of images: a function that can be differentiated twice, without state."""
    weight = torch.linspace(-1, 1, 3 * scores, device=x.device).view(3, scores)
    return (x @ weight).tanh()


def losses() -> dict[str, Call]:
    """Return calls of :class:`MMDLoss` in all its options."""
    made = {f"lambda {value}": MMDLoss(RBFKernel(), value) for value in (-1.0, 0.0, 0.5, 1.0, 2.0)}
    made |= {f"{name}": MMDLoss(kernel, 0.5) for name, kernel in KINDS.items()}
    made |= {f"bounded, lambda {value}": MMDLoss(RBFBKernel(), value) for value in (-1.0, 1.0)}
    made |= {f"{name}": MMDLoss(estimator=name) for name in ("biased", "u_statistic")}
    made |= {"tile_size": MMDLoss(RBFMix(), tile_size=500), "global_batch": MMDLoss(global_batch=True)}
    calls = {}
    for name, loss in made.items():
        calls[f"both, {name}"] = Call(lambda s, loss=loss: loss.both(s.real, s.fake), times(name))
        calls[f"terms, {name}"] = Call(lambda s, loss=loss: loss.terms(s.real, s.fake), 0)
    remembering = MMDLoss(remember_real=True)

    def from_memory(s: Samples) -> Tensor:
        remembering.discriminator(real=s.real, fake=s.fake)
        return remembering.generator(fake=s.fake)

    loss = MMDLoss(RBFMix())
    calls["discriminator"] = Call(lambda s: loss.discriminator(s.real, s.fake))
    calls["generator"] = Call(lambda s: loss.generator(real=s.real.detach(), fake=s.fake))
    calls["forward"] = Call(lambda s: loss(real=s.real, fake=s.fake))
    calls["generator, remembered"] = Call(from_memory)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        calls[f"{dtype}"] = Call(lambda s, dtype=dtype: loss.both(s.real.to(dtype), s.fake.to(dtype)))

    def under_autocast(s: Samples) -> object:
        with torch.autocast(s.real.device.type, torch.bfloat16):
            return loss.both(s.real @ s.real.T[:, :D], s.fake @ s.fake.T[:, :D])

    calls["autocast"] = Call(under_autocast)
    return calls


def scaled_losses() -> dict[str, Call]:
    """Return calls of :class:`ScaledMMDLoss` in all its options."""
    made = {
        f"{scale}, {type(kernel).__name__}": ScaledMMDLoss(kernel, scale=scale)
        for scale in ("practical", "exact")
        for kernel in (RBFKernel(), RBFMix(), RationalQuadraticMix(), RBFKernel() + LinearKernel(), LinearKernel())
    }
    made["no squares"] = ScaledMMDLoss(LinearKernel(), squared=False)
    made |= {"biased": ScaledMMDLoss(estimator="biased"), "tile_size": ScaledMMDLoss(tile_size=500)}
    calls = {}
    for name, loss in made.items():
        count = 1 if "no squares" in name else 4

        def run(s: Samples, method: str, loss: ScaledMMDLoss = loss, count: int = count) -> object:
            real, fake = critic(s.images, count), critic(s.other[: len(s.real), :3], count)
            return getattr(loss, method)(real=real, fake=fake, inputs=s.images)

        for method in ("discriminator", "generator", "both"):
            calls[f"{method}, {name}"] = Call(partial(run, method=method), 1, without_gradients=False)
        calls[f"terms, {name}"] = Call(partial(run, method="terms"), 0, without_gradients=False)
    return calls


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Linear": (lambda: nn.Linear(5, 4), (5,)),
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3, groups=2, stride=2), (4, 9)),
    "Conv2d": (lambda: nn.Conv2d(3, 8, 4, stride=2, padding=1), (3, 8, 8)),
    "Conv2d, circular": (lambda: nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"), (3, 8, 8)),
    "Conv2d, reflect": (lambda: nn.Conv2d(3, 8, 3, padding="same", padding_mode="reflect"), (3, 8, 8)),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 3, dilation=2), (2, 6, 6, 6)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=2), (4, 5)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, output_padding=1), (4, 5, 5)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 3), (2, 4, 4, 4)),
}

METHODS: dict[str, dict[str, Any]] = {
    "conv": {},
    "pico": {"method": "pico"},
    "matrix": {"method": "matrix"},
    "two iterations": {"n_power_iterations": 2},
    "learned scale": {"learn_scale": True, "scale": 2.0},
}


def wrapped(make: Callable[[], nn.Module], device: torch.device, **options: Any) -> nn.Module:
    """Return a layer that is made and wrapped on a device."""
    with device:
        return conv_spectral_norm(make(), **options)


def normalised(
    device: torch.device, shape: tuple[int, ...], make: Callable[[], nn.Module], **options: Any
) -> tuple[Tensor, ...]:
    """Return the outputs of a layer: in the first forward, after a change of its weight, and in eval mode."""
    layer = wrapped(make, device, **options)
    x, parameters = torch.randn(2, *shape, device=device), list(layer.parameters())
    found: list[Tensor] = []

    def forward() -> None:
        out = layer(x)
        gradients = torch.autograd.grad(out.square().sum(), parameters, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in gradients), parameters)
        found.extend([out, *gradients, *second])

    forward()
    with torch.no_grad():
        layer.parametrizations.weight.original.mul_(2)
    forward()
    layer.eval()
    forward()
    return *found, *layer.state_dict().values()


def spectral_layers() -> dict[str, Call]:
    """Return forwards and derivatives of wrapped layers."""
    return {
        f"{layer}, {method}": Call(
            lambda s, shape=shape, make=make, options=options: normalised(s.real.device, shape, make, **options),
            0,
            (2,),
            without_gradients=False,
        )
        for layer, (make, shape) in LAYERS.items()
        for method, options in METHODS.items()
        if method == "conv" or layer in ("Linear", "Conv2d", "ConvTranspose2d")
    }


def norms(s: Samples) -> dict[str, Tensor]:
    """Return the norms of a network."""
    device = s.real.device
    model = wrapped(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2)), device)
    model(torch.randn(2, 3, 8, 8, device=device))
    return spectral_norms(model)


def penalty(target: float) -> Call:
    """Return a gradient penalty at points between real and fake samples."""

    def run(s: Samples) -> Tensor:
        points = interpolation_points(s.images, s.other[: len(s.images), :3])
        values = witness(critic(points), critic(s.images), critic(s.images.flip(0)), RBFKernel())
        return gradient_penalty(values, points, target=target)

    return Call(run, 1, without_gradients=False)


def made_reference(kind: str, *, weighted: bool = False) -> MMDReference:
    """Return a reference on the CPU that knows all that it reads numbers for, once."""
    rows, weights = scores(600, D, 1).float(), scores(600, 1, 2)[:, 0].abs()
    options = taken_by(kind, landmarks=20, frequencies=30)
    made = MMDReference(rows, RBFKernel(9.0), kind=kind, weights=weights if weighted else None, **options)
    assert made.self_term > 0
    if kind != "fourier":
        made.drmmd2(rows[:2], lambda_=0.1)
    return made


REFERENCES = {kind: made_reference(kind) for kind in REFERENCE_KINDS}
REFERENCES["weighted"] = made_reference("exact", weighted=True)


def reference_on(device: torch.device, name: str) -> MMDReference:
    """Return a reference on a device with ones in place of its numbers, which only a copy could bring there."""
    made = REFERENCES[name]
    factor = made.form._regularised
    kept = [*made.buffers(), *([] if factor is None else (*factor[1:-1], *factor.solve.args))]
    ones = {id(x): torch.ones(x.shape, dtype=x.dtype, device=device) for x in kept if isinstance(x, Tensor)}
    return copy.deepcopy(made, ones)


def references() -> dict[str, Call]:
    """Return calls of the methods of references of all kinds."""
    calls: dict[str, Callable[[MMDReference, Samples], object]] = {
        "mmd2": lambda r, s: r.mmd2(s.fake),
        "mmd2, unbiased": lambda r, s: r.mmd2(s.fake, estimator="unbiased"),
        "attraction": lambda r, s: r.attraction(s.fake),
        "witness": lambda r, s: r.witness(s.other, s.fake),
        "sums": lambda r, s: r.sums(s.fake),
        "drmmd2": lambda r, s: r.drmmd2(s.fake, lambda_=0.1),
        "drmmd_witness": lambda r, s: r.drmmd_witness(s.other, s.fake, lambda_=0.1),
        "error_bound": lambda r, s: r.error_bound(s.fake),
        "self_term": lambda r, _: r.self_term,
        "shard": lambda r, _: list(r.shard(0, 2).buffers()),
    }
    without_graph = ("error_bound", "self_term", "shard")
    refused = {("fourier", name) for name in ("drmmd2", "drmmd_witness", "error_bound")}

    def call(kind: str, name: str) -> Call:
        run, times = calls[name], 0 if name in without_graph else 2
        return Call(lambda s: run(reference_on(s.real.device, kind), s), times)

    return {f"{kind}, {name}": call(kind, name) for kind in REFERENCES for name in calls if (kind, name) not in refused}


def from_rows_on_the_host(s: Samples) -> list[Tensor]:
    """Return what references on the CPU say of samples on a device."""
    device = torch.device("cpu")
    made = [reference_on(device, name) for name in REFERENCES]
    return [x for r in made for x in (r.mmd2(s.fake), r.attraction(s.fake), *r.sums(s.fake))]


def features(x: Tensor) -> Tensor:
    return (x @ torch.linspace(-1, 1, D * 2, device=x.device).view(D, 2)).tanh()


KERNELS = {name: case.make() for name, case in CASES.items()}
KINDS = {
    name: KERNELS[name]
    for name in (
        *("rbf_mix", "rbf_b", "linear", "polynomial", "energy", "l1_laplace", "product", "columns"),
        *("sum_with_linear", "own_radial", "own_general"),
    )
}
"""One kernel for each way of evaluation."""
RBF = RBFKernel()


def cached(s: Samples) -> list[Tensor]:
    """Return the loss and the gradients of a network."""
    weight = torch.ones(D, D, device=s.real.device, requires_grad=True)
    loss = cached_backward(
        s.fake.detach().split(40),
        encode=lambda x: {"wide": torch.dropout(x @ weight, 0.5, True), "narrow": (x @ weight)[:, :2]},
        loss=lambda fake: mmd2(s.real, fake["wide"], RBF) + mmd2(s.real[:, :2], fake["narrow"], RBF),
    )
    assert weight.grad is not None
    return [loss, weight.grad]


def in_two_blocks(real: Tensor, fake: Tensor, kernel: Kernel) -> object:
    return mmd2_blocks(real, fake, kernel, block_size=len(real) // 2)


CALLS: dict[str, dict[str, Call]] = {
    "Kernel": {name: Call(lambda s, k=kernel: k(s.real, s.fake), 1) for name, kernel in KERNELS.items()},
    "mmd2": {
        **estimators(mmd2, KERNELS),
        **estimators(mmd2, {"mix": RBFMix(), "cubic": PolynomialKernel()}, estimator="biased"),
        **estimators(mmd2, {"mix": RBFMix(), "cubic": PolynomialKernel()}, estimator="u_statistic", tile_size=500),
    },
    "mmd2_and_variance": estimators(mmd2_and_variance, KINDS),
    "mmd2_blocks": {
        **estimators(in_two_blocks, KINDS),
        **estimators(mmd2_blocks, {"mix": RBFMix(), "linear": LinearKernel()}, block_size=2, estimator="biased"),
    },
    "mmd2_fourier": {
        **estimators(mmd2_fourier, {"mix": RBFMix(), "sum": RBF + 2 * LinearKernel()}, frequencies=20),
        "from the CPU": Call(
            lambda s: mmd2_fourier(s.real, s.fake, RBF, frequencies=9, generator=torch.Generator().manual_seed(0))
        ),
    },
    "witness": {
        name: Call(lambda s, k=kernel: witness(s.other, s.real, s.fake, k), times(name))
        for name, kernel in KINDS.items()
    },
    "gradient_constrained_mmd2": {
        "exact": Call(lambda s: gradient_constrained_mmd2(s.real[:40], s.fake[:30], RBF), 1),
        "low rank": Call(lambda s: gradient_constrained_mmd2(s.real, s.fake, RBFMix(), rank=20), 1),
        "features": Call(lambda s: gradient_constrained_mmd2(s.real, s.fake, RBF, features=features), 1),
    },
    "relative": {"": Call(lambda s: relative(mmd2(s.real, s.fake, RBF, estimator="biased")), 1)},
    "grouped_mmd2": {
        **{
            f"{count} groups, {name}": Call(
                lambda s, k=kernel, g=count: grouped_mmd2(s.real.view(g, -1, D), s.fake.view(g, -1, D), k), times(name)
            )
            for count in (1, 8)
            for name, kernel in KINDS.items()
        },
        **{
            f"{count} groups, scaled": Call(
                lambda s, g=count: grouped_mmd2(
                    s.real.view(g, -1, D), s.fake.view(g, -1, D), RBFMix(), scale=s.real.new_full((g,), 2.0)
                )
            )
            for count in (1, 8)
        },
        "weights": Call(
            lambda s: grouped_mmd2(
                s.real.view(4, -1, D), s.fake.view(4, -1, D), RBF, real_weights=s.images[:, 0].square().view(4, -1) + 1
            )
        ),
    },
    "MMDReference": {**references(), "on the host": Call(from_rows_on_the_host)},
    "cached_backward": {"": Call(cached, 0, without_gradients=False)},
    "kernel_sums": {
        name: Call(lambda s, k=kernel: kernel_sums(s.other, s.real, k), 1) for name, kernel in KINDS.items()
    },
    "witness_gradient": {
        name: Call(lambda s, k=kernel: witness_gradient(s.other, real=s.real, fake=s.fake, kernel=k), 1)
        for name, kernel in KINDS.items()
    },
    "drift": {
        **{
            normaliser: Call(lambda s, n=normaliser: drift(s.fake, s.real, kernel=LaplaceKernel(0.5), normalise=n), 0)
            for normaliser in ("none", "rows", "rows_and_columns", "sharp")
        },
        "columns": Call(lambda s: drift(s.fake, s.real, kernel=LaplaceKernel(0.5).on(slice(0, 2))), 0),
    },
    "drift_loss": {
        "": Call(lambda s: drift_loss(s.fake, s.real), 1),
        "groups": Call(lambda s: drift_loss(s.fake.view(4, -1, D), s.real.view(4, -1, D), per_group=True), 1),
    },
    "MMDLoss": losses(),
    "ScaledMMDLoss": scaled_losses(),
    "mmd_test": {
        name: Call(lambda s, k=KERNELS[name]: mmd_test(s.real, s.fake, k, permutations=50), 0)
        for name in ("rbf", "rational_quadratic_mix", "energy")
    },
    "relative_mmd_test": {
        name: Call(lambda s, k=kernel: relative_mmd_test(s.real, s.fake, s.other, k), 0)
        for name, kernel in KINDS.items()
    },
    "interpolation_points": {
        "": Call(lambda s: interpolation_points(s.real, s.fake), 0),
        "from the CPU": Call(lambda s: interpolation_points(s.real, s.fake, generator=torch.Generator()), 0),
    },
    "gradient_penalty": {f"target {target}": penalty(target) for target in (0.0, 1.0)},
    "l2_penalty": {"": Call(lambda s: l2_penalty(s.real, s.fake))},
    "conv_spectral_norm": spectral_layers(),
    "spectral_norms": {"": Call(norms, 0, (2,), without_gradients=False)},
}
"""By public name."""

CONDITIONED = ("mmd2", "mmd2_and_variance")
"""Functions that take another way on GPUs that are slow in float64."""

READING: dict[str, tuple[str, Callable[[Samples], object]]] = {
    "MMDReference": (
        "its rows are checked when it is made",
        lambda s: MMDReference(s.real.detach(), RBF),
    ),
    "MMDReference.update": (
        "rows are checked when they are added",
        lambda s: reference_on(s.real.device, "exact").update(s.real.detach()),
    ),
    "MMDReference.drmmd2": (
        "the first call with a number computes a factor and checks it",
        lambda s: reference_on(s.real.device, "exact").drmmd2(s.fake, lambda_=0.3),
    ),
    "distance_quantiles": (
        "samples are checked, and a seed is drawn",
        lambda s: distance_quantiles(s.real, s.fake),
    ),
    "ratio_to_real": (
        "a reference is checked when it is made, and a denominator that is only rounding is refused",
        lambda s: ratio_to_real(MMDReference(s.real.detach(), RBF), s.fake, s.real),
    ),
    "median_distance": ("it returns a Python number", lambda s: median_distance(s.real, s.fake)),
    "mmd_test": ("without a kernel, bandwidths are the median distance", lambda s: mmd_test(s.real, s.fake)),
}
"""Public functions, or methods after a dot, that have to read a number of the device, the reason, and a call.

The first three calls of a loss and the first call of `mmd2` from a line read numbers too, to warn of mistakes. They do
not in the modes of :func:`fake_cuda`, while a CUDA graph is captured, or while PyTorch reports synchronisations (see
`reach.is_readable`).
"""

WITHOUT_CALLS = {
    "UsageWarning": "a class of warnings",
}


def samples(n: int, device: torch.device) -> Samples:
    """Return samples on a device."""
    shapes = ((n, D), (n, D), (n + 10, D), (n, 3))
    return Samples(*(torch.randn(shape, device=device, requires_grad=True) for shape in shapes))


def check(call: Call, s: Samples) -> None:
    """Call, and differentiate all results as often as they can be; all of them have to stay on the device."""
    found = _tensors(call.run(s), s)
    assert found
    for _ in range(call.derivatives):
        total = sum(x.double().square().sum() for x in found if x.requires_grad)
        found = _tensors(torch.autograd.grad(total, list(s), create_graph=True, allow_unused=True), s)
        assert found
    if call.without_gradients:
        with torch.no_grad():
            _tensors(call.run(s), s)


def _tensors(found: object, s: Samples) -> list[Tensor]:
    tensors = [x for x in tree_leaves(found) if isinstance(x, Tensor)]
    assert {x.device for x in tensors} <= {s.real.device}
    return tensors
