"""Gradient caching: the gradient of a loss on a batch whose activations do not fit into memory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree
from torch.utils.checkpoint import get_device_states, set_device_states

from torch_mmd_losses import checks, usage_warnings
from torch_mmd_losses.pairs import reach

Chunk = TypeVar("Chunk")

Features = Mapping[str, Tensor]
"""Features by the name of their encoder. A single tensor is stored under :data:`ALONE`."""

ALONE = ""

SAME = 0.01
"""Largest difference between the features of both passes, relative to their norm, that rounding can explain."""

COUNTING = (nn.modules.batchnorm._BatchNorm.forward, nn.SyncBatchNorm.forward)
"""Forward passes of batch norms that count themselves. Those of other libraries may not, such as a synchronised one."""


def cached_backward(
    chunks: Iterable[Chunk],
    encode: Callable[[Chunk], Tensor | Mapping[str, Tensor]],
    loss: Callable[[Any], Tensor],
    *,
    scaler: torch.amp.GradScaler | None = None,
    no_sync: Callable[[], AbstractContextManager[Any]] | None = None,
) -> Tensor:
    r"""Compute a loss of a large batch and its gradients, with the activations of one chunk at a time.

    MMD compares all samples of a batch with each other. Accumulating the gradients of small batches leaves out the
    pairs of samples from different small batches: with an unbiased estimator, the gradient keeps its expectation but
    gets noisier, and with the biased one it is the gradient of a different loss. This function computes the gradient of
    the whole batch. The first pass computes the features of all chunks without a graph. Then the loss is differentiated
    with respect to the features. The second pass computes the features of each chunk again, with a graph, and continues
    the backward pass from them:

    .. math:: \frac{\partial L}{\partial \theta}
        = \sum_c \Bigl(\frac{\partial \phi_c}{\partial \theta}\Bigr)^{\!\top} \frac{\partial L}{\partial \phi_c}

    for the features :math:`\phi_c` of chunk :math:`c` and the parameters :math:`\theta`. The result is that of
    `loss(encode(batch)).backward()` up to rounding. It takes an additional forward pass, and memory for the features
    and for the activations of one chunk. Gradients are added to `.grad`, as by `backward`. They are not divided by the
    number of chunks.

    Each chunk gets the same random numbers in both passes, so dropout and noise from PyTorch's default generators are
    allowed. After the call, these generators are in the state after a single pass. Noise from a generator of your own
    is not repeated: draw it before the call, as part of the chunks. BatchNorm in training mode would normalise each
    chunk by itself and count each chunk twice.

    Args:
        chunks: the inputs of `encode`, for example `noise.split(256)`, of any type. All are kept in memory.
        encode: returns the features `(n, ...)` of a chunk, floating-point, or a dictionary of such tensors, for example
            those of several encoders. Both passes run under the autocast of the caller.
        loss: returns the loss, a scalar, given the features of all chunks, concatenated along dim 0: a tensor or a
            dictionary, as `encode` returns them. It may depend on parameters of its own. It is called once, so it can
            also store values for logging in a dictionary.
        scaler: scales the loss before it is differentiated. Call `scaler.step(optimizer)` afterwards.
        no_sync: returns a context in which gradients are not averaged over processes, such as the `no_sync` of a
            network in :class:`torch.nn.parallel.DistributedDataParallel`. All chunks except the last run in it. For a
            loss with `global_batch=True`, the averaged gradients are then those of the batch of all processes.

    Returns:
        The loss, a detached scalar, not scaled.

    Raises:
        TypeError: if `encode`, `loss` or `no_sync` cannot be called, if `encode` returns anything else, if `loss` does
            not return a tensor, or if `scaler` has no `scale`.
        ValueError: if `chunks` is a tensor or empty; if features are not floating-point or have no dimension; if the
            names or shapes that `encode` returns differ between chunks or between the passes; if the loss is not a
            scalar or does not depend on the features.
        RuntimeError: if gradients are disabled.

    Warns:
        UsageWarning: if `encode` uses BatchNorm in training mode, if the features of the two passes differ, or if the
            gradient of the loss is exactly zero. Only the first call from each place in the code is examined.

    Example:
        >>> generator = torch.nn.Linear(8, 32)
        >>> encoder = torch.nn.Sequential(torch.nn.Linear(32, 16), torch.nn.ReLU())
        >>> real, noise = torch.randn(1000, 16), torch.randn(1000, 8)
        >>> loss = cached_backward(
        ...     noise.split(250),
        ...     encode=lambda z: encoder(generator(z)),
        ...     loss=lambda fake: mmd2(real, fake, RBFKernel(4.0)),
        ... )
        >>> generator.weight.grad.shape
        torch.Size([32, 8])

    References:
        Gao et al. (2021), Section 3.
    """
    for name, function in (("encode", encode), ("loss", loss), ("no_sync", no_sync or nullcontext)):
        if not callable(function):
            raise TypeError(f"{name}: expected a function, got {checks.described(function)}")
    if scaler is not None and not callable(getattr(scaler, "scale", None)):
        raise TypeError(f"scaler: expected a torch.amp.GradScaler, got {checks.described(scaler)}")
    if not torch.is_grad_enabled():
        raise RuntimeError("cached_backward: expected a call with gradients enabled, got one under torch.no_grad()")
    if isinstance(chunks, Tensor):
        raise ValueError(
            f"chunks: expected parts of a batch, such as noise.split(256), got a tensor of shape {tuple(chunks.shape)}"
        )
    parts = list(chunks)
    if not parts:
        raise ValueError("chunks: expected at least one chunk, got none")
    examined = usage_warnings.is_first_call_from_place()
    batch_norms = _batch_norms(encode) if examined else []
    states: list[_RandomState] = []
    features: list[Features] = []
    with torch.no_grad():
        for i, chunk in enumerate(parts):
            states.append(_RandomState(chunk))
            features.append(_features(encode(chunk), i))
    _warn_of_batch_norm(batch_norms)
    torch.clear_autocast_cache()  # in PyTorch 2.6, it has copies of weights without gradients
    value, gradients = _loss_with_gradients(loss, features, scaler)
    examined = examined and reach.is_readable(*features[0].values())
    if examined:
        _warn_of_no_gradient(gradients)
    after = _RandomState(parts)
    last = len(parts) - 1
    for i, (chunk, state) in enumerate(zip(parts, states, strict=True)):
        with no_sync() if no_sync is not None and i < last else nullcontext():
            state.restore()
            again = _features(encode(chunk), i)
            _check_same(features[i], again, i)
            if examined:
                _warn_of_other_features(features[i], again)
            _backward(again, gradients[i], i)
            del again  # before the next chunk has a graph too
    after.restore()
    return value


class _RandomState:
    """The states of PyTorch's generators on the CPU, on the devices of some tensors and on the current accelerator."""

    def __init__(self, tensors: object) -> None:
        found = [leaf for leaf in _pytree.tree_leaves(tensors) if isinstance(leaf, Tensor)]
        if torch.accelerator.is_available():
            found.append(torch.empty(0, device=torch.accelerator.current_accelerator()))
        self.cpu = torch.get_rng_state()
        self.kind = next((leaf.device.type for leaf in found if leaf.device.type not in ("cpu", "meta")), None)
        self.devices, self.states = get_device_states(*found) if self.kind else ([], [])

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.kind:
            set_device_states(self.devices, self.states, device_type=self.kind)


def _features(found: object, chunk: int) -> Features:
    """Return the result of `encode` as a dictionary, or raise if it does not consist of features."""
    features: dict[str, Any] = dict(found) if isinstance(found, Mapping) else {ALONE: found}
    if not features:
        raise ValueError(f"encode: expected features, got an empty dictionary for chunk {chunk}")
    for name, value in features.items():
        which = f"chunk {chunk}" if name == ALONE else f"{name!r} of chunk {chunk}"
        if not isinstance(value, Tensor):
            raise TypeError(
                f"encode: expected a tensor of features or a dictionary of tensors, got {checks.described(value)} "
                f"for {which}"
            )
        if not value.is_floating_point() or not value.ndim:
            raise ValueError(
                f"encode: expected floating-point features (n, ...), got {value.dtype} of shape {tuple(value.shape)} "
                f"for {which}"
            )
    return features


def _loss_with_gradients(
    loss: Callable[[Any], Tensor], features: Sequence[Features], scaler: torch.amp.GradScaler | None
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Return the loss, and for each chunk the gradients of the scaled loss with respect to its features."""
    names = list(features[0])
    for i, each in enumerate(features):
        shapes = {name: tuple(each[name].shape[1:]) for name in each}
        expected = {name: tuple(features[0][name].shape[1:]) for name in names}
        if shapes != expected:
            raise ValueError(
                f"encode: expected the same features of every chunk, got {_listed(expected)} for chunk 0 and "
                f"{_listed(shapes)} for chunk {i}"
            )
    whole = {name: torch.cat([each[name] for each in features]).detach().requires_grad_() for name in names}
    value: object = loss(whole[ALONE] if names == [ALONE] else whole)
    if not isinstance(value, Tensor):
        raise TypeError(
            f"loss: expected a scalar tensor, got {checks.described(value)}. It is called once, so "
            "store values for logging in a dictionary of your own"
        )
    if value.ndim:
        raise ValueError(f"loss: expected a scalar, got a tensor of shape {tuple(value.shape)}")
    if value.requires_grad:
        (value if scaler is None else scaler.scale(value)).backward()
    gradients = {name: tensor.grad for name, tensor in whole.items() if tensor.grad is not None}
    if not gradients:
        raise ValueError("loss: expected a differentiable function of the features, got a loss that has no gradient")
    sizes = [{name: len(each[name]) for name in names} for each in features]
    split = {name: gradient.split([size[name] for size in sizes]) for name, gradient in gradients.items()}
    return value.detach(), [{name: pieces[i] for name, pieces in split.items()} for i in range(len(features))]


def _backward(features: Features, gradients: Mapping[str, Tensor], chunk: int) -> None:
    traced = [name for name in gradients if features[name].requires_grad]
    if not traced:
        raise ValueError(
            f"encode: expected features that depend on parameters that require gradients, got none for chunk {chunk}"
        )
    torch.autograd.backward([features[name] for name in traced], [gradients[name] for name in traced])


def _check_same(first: Features, second: Features, chunk: int) -> None:
    before, now = ({name: tuple(value.shape) for name, value in found.items()} for found in (first, second))
    if before != now:
        raise ValueError(
            f"encode: expected the same features in both passes, got {_listed(before)} and then {_listed(now)} for "
            f"chunk {chunk}"
        )


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(str(shape) if name == ALONE else f"{name!r} {shape}" for name, shape in shapes.items())


def _warn_of_other_features(first: Features, second: Features) -> None:
    for name, before in first.items():
        difference = (second[name].detach() - before).norm()
        if float(difference) > SAME * float(before.norm()):
            usage_warnings.warn(
                "other features",
                "cached_backward: expected encode to return the same features in both passes, got different ones, so "
                "the gradients are wrong. Draw noise from your own generators before the call, as part of the chunks, "
                "and do not let encode change its own state",
            )


def _warn_of_no_gradient(gradients: Sequence[Mapping[str, Tensor]]) -> None:
    if not any(bool(gradient.any()) for chunk in gradients for gradient in chunk.values()):
        usage_warnings.warn(
            "no gradient of features",
            "cached_backward: expected a loss with gradients, got gradients of exactly zero for all features. If the "
            "kernel does not reach from any sample to another, choose its bandwidth near the median distance of the "
            "features. If the loss is divided by itself, detach the divisor, as relative(loss) does",
        )


def _batch_norms(encode: object) -> list[tuple[str, nn.Module, int | None]]:
    """Return the batch norms in training mode that a function may use, with their names and :func:`_uses`."""
    return [
        (name, part, _uses(part))
        for module in _modules(encode)
        for name, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training
    ]


def _uses(batch_norm: nn.Module) -> int | None:
    """Return a number that changes when a batch norm is used in training mode, or None if nothing is counted."""
    counter = batch_norm.num_batches_tracked
    if type(batch_norm).forward not in COUNTING or not isinstance(counter, Tensor) or counter.is_inference():
        return None
    return counter._version


def _warn_of_batch_norm(found: Sequence[tuple[str, nn.Module, int | None]]) -> None:
    """Warn of a batch norm that has been used since. A method may belong to a module that has others, too."""
    for name, part, before in found:
        if before is None or _uses(part) != before:
            usage_warnings.warn(
                "batch norm of chunks",
                f"cached_backward: expected encode to treat each sample by itself, got "
                f"{type(part).__name__} {name!r} in training mode, which normalises each chunk by itself and "
                "counts it twice in its statistics. Put it in eval mode, or use another normalisation",
            )
            return


def _modules(function: object) -> list[nn.Module]:
    """Return the modules that a function refers to, as far as they can be found."""
    if isinstance(function, nn.Module):
        return [function]
    if isinstance(function, partial):
        values = [function.func, *function.args, *function.keywords.values()]
    elif inspect.ismethod(function):
        values = [function.__self__]
    elif inspect.isfunction(function):
        names = inspect.getclosurevars(function)
        values = [*names.nonlocals.values(), *names.globals.values()]
    else:
        values = []
    return [value for value in values if isinstance(value, nn.Module)]
