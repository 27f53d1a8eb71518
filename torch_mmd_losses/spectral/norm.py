"""The public functions: wrap layers by spectral normalisation, and read their spectral norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from torch_mmd_losses import checks
from torch_mmd_losses.spectral import containers, operators
from torch_mmd_losses.spectral.accelerated import AcceleratedSpectralNorm
from torch_mmd_losses.spectral.example import check_example, run_example
from torch_mmd_losses.spectral.guarantees import check_guarantees
from torch_mmd_losses.spectral.hooks import FirstForwardHook, IterationHook, named_spectral_norms
from torch_mmd_losses.spectral.layers import (
    CONVOLUTIONS,
    check_input_size,
    check_layer,
    check_scale,
    layers_to_wrap,
    spatial_dims,
)
from torch_mmd_losses.spectral.parametrization import UNKNOWN_INPUT_SIZE, SpectralNorm
from torch_mmd_losses.spectral.replacement import (
    layers_with_spectral_norms_of_torch,
    remove_spectral_norm_of_torch,
)
from torch_mmd_losses.spectral.sharding import whole
from torch_mmd_losses.spectral.snapshot import Snapshot
from torch_mmd_losses.types import METHODS, Method

Module = TypeVar("Module", bound=nn.Module)


def conv_spectral_norm(
    module: Module,
    name: str = "weight",
    *,
    input_size: int | Sequence[int] | None = None,
    example_input: Tensor | tuple[Any, ...] | None = None,
    n_power_iterations: int = 1,
    method: Method = "conv",
    scale: float = 1.0,
    learn_scale: bool = False,
    eps: float = 1e-12,
    strict: bool = False,
    replace: bool = False,
) -> Module:
    r"""Normalise the weight of a layer, or of every layer in a network, by its spectral norm.

    The layer then uses the weight

    .. math:: \bar W = C \, W / \sigma(W), \qquad \sigma(W) = \max_v \lVert W * v \rVert / \lVert v \rVert,

    where :math:`*` is the linear map that the layer applies to its input, without the bias. The map includes stride,
    padding, padding mode, dilation, groups and output padding.

    **Accuracy.** Sigma is estimated as :math:`\lVert W * v \rVert`. The unit vector :math:`v` is found by iteration and
    held constant in the gradient. **The estimate is a lower bound**, so the Lipschitz constant of a layer in use is
    above `scale`. In our measurements, the estimate was 6 per cent too low in the median, and 29 per cent at worst, in
    the first ten steps of training, while the weights move fast. After twenty steps it was 0.03 per cent too low in the
    median and 2 per cent at worst; "How exact" on the :doc:`theory page </theory>` has the experiment. Everything is
    computed at least in float32.

    **Updates.** The iteration advances by `n_power_iterations` in the first forward pass of the layer in training mode
    after each change of the weight, as in the papers. All forward passes at the same weight use the same :math:`v`. A
    change is recognised by the values of the weight, so it does not matter which optimiser or program made it, and
    copies, checkpoints and activation checkpointing continue like the original. The iteration does not advance in eval
    mode, when `.weight` is read, or in a backward pass. On a CPU, forward passes without a change skip the iteration.
    On other devices and in exported programs the iteration is always computed, and its result is used after a change
    only, so that the host never waits for the device.

    **Input size.** The iteration starts from a Lanczos approximation of :math:`v`. This start is computed here, or in
    the first forward pass (in either mode) if the input size is not known before. It uses no random numbers, so all
    processes of a distributed job start alike. Sigma belongs to this first input size. Inputs of other sizes are
    accepted and normalised by the same number, so the first forward pass should have the size that matters. A forward
    pass of `module` that fails does not count. For transposed convolutions, the `output_size` of the first forward pass
    counts too.

    **The computed weight.** `layer.weight` is computed and therefore cannot be changed in place, for example by
    `nn.init`. An assignment `layer.weight = tensor` replaces the trained weight and restarts the iteration.
    `torch.nn.utils.parametrize.remove_parametrizations(layer, name)` leaves the normalised weight in the layer.

    Args:
        module: a `Linear`, `Conv1d/2d/3d` or `ConvTranspose1d/2d/3d` layer, or a module that contains such layers, each
            of which is wrapped.
        name: the parameter to normalise.
        input_size: spatial size of the layer's input, without batch and channels, as one number for all dimensions or
            one for each; None takes it from the first forward pass. Only for a single convolution, and not for
            `method="matrix"`.
        example_input: a tensor, or a tuple of all positional arguments, for one forward pass of `module` in eval mode
            without gradients. It fixes the input sizes of all layers, so that copies, moving averages, checkpoints,
            export, compilation and distributed training need no first forward pass. If it fails, `module` stays as it
            was.
        n_power_iterations: iterations for each change of the weight, >= 1. `method="conv"` does twice as many where
            they cost little, in layers of at most four million multiplications at stride 1.
        method: `"conv"` and `"pico"` use the norm of the convolution itself, which depends on the input size.
            `"matrix"` uses the norm of the weight reshaped to (output channels) x (everything else), as Miyato et al.
            do, which is usually smaller. All three norms are the same for `Linear`. With groups, the norm is that of
            the largest group, and each group is followed by itself. `"pico"` and `"matrix"` do plain power iterations
            :math:`v \leftarrow W^T * W * v`, one for each change of the weight by default, as in the papers. `"conv"`
            follows the weight more closely, and stores an additional tensor as large as the weight.
        scale: the factor `C`, > 0. With `C = 1` the signal fades from layer to layer; the authors of Wang et
            al. recommend 1 / 0.55.
        learn_scale: make `scale` a parameter, initialised to the given number (the spectral parametrisation of Arbel
            et al.). Create the optimiser after wrapping.
        eps: if sigma <= eps, the weight is multiplied by `scale` but not divided by sigma; > 0.
        strict: raise an error where a :class:`UsageWarning` would be issued, see below.
        replace: first remove PyTorch's own spectral norms (`torch.nn.utils.spectral_norm` or the parametrization of
            that name) from these layers. Their trained weights stay, as the same parameters.

    Returns:
        `module` itself, changed in place. For each layer, `state_dict` holds `parametrizations.<name>.original`,
        `parametrizations.<name>.0.v` and `fingerprint` and, if the scale is learned, `scale`. With `method="conv"` it
        also holds `u` and `direction`, and for transposed convolutions `output_padding` (except for
        `method="matrix"`). A state without `fingerprint`, `output_padding`, `u` and `direction`, from an earlier
        version or another method, can be loaded too.

    Raises:
        TypeError: if `module` is not a module or an option is of the wrong type.
        ValueError: if `module` contains no such layer, a layer has no such floating-point parameter, is parametrized
            already or sharded, `input_size` does not fit, or an option is out of range; with `strict`, also if a
            warning would be issued.

    Warns:
        UsageWarning: if the norms of the layers do not bound the network: it contains batch norm or instance norm with
            running statistics, layers whose class overrides `forward`, or weights in modules of other kinds, which stay
            as they are. Also if `example_input` did not reach all layers.

    Example:
        >>> discriminator = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 4, stride=2, padding=1),
        ...     torch.nn.LeakyReLU(0.1),
        ...     torch.nn.Flatten(),
        ...     torch.nn.Linear(8 * 4 * 4, 16),
        ... )
        >>> discriminator = conv_spectral_norm(discriminator, scale=1 / 0.55)
        >>> discriminator(torch.randn(64, 3, 8, 8)).shape
        torch.Size([64, 16])

    References:
        Wang et al. (2019), Section 4.2 and Appendix C (B.1 of the submission), for `method="pico"` (PICO) and the norm;
        Knyazev (2001), Algorithm 4.1 with one vector, for the iteration of `method="conv"`; Miyato et al. (2018),
        Algorithm 1, for `method="matrix"`; Arbel et al. (2018), Section 3, for `learn_scale`.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    if not isinstance(name, str):
        raise TypeError(
            f"name: expected the name of a parameter, got {checks.described(name)} (options such as scale= are "
            "keyword-only)"
        )
    checks.one_of("method", method, METHODS)
    iterations = checks.whole_number("n_power_iterations", n_power_iterations, least=1)
    factor, smallest = checks.positive_number("scale", scale), checks.positive_number("eps", eps)
    if smallest > torch.finfo(torch.float32).max:
        raise ValueError(f"eps: expected a number that torch.float32 can hold, got {checks.described(eps)}")
    learned, is_strict = checks.flag("learn_scale", learn_scale), checks.flag("strict", strict)
    example = check_example(example_input, input_size)
    layers = layers_to_wrap(module)
    replaced = layers_with_spectral_norms_of_torch(layers, name) if checks.flag("replace", replace) else {}
    for label, layer in layers.items():
        if label not in replaced:
            check_layer(label, layer, name)
        check_scale(label, getattr(layer, name), factor)
    size = check_input_size(input_size, layers, method, name)
    check_guarantees(module, layers, strict=is_strict)
    before = Snapshot(module)
    try:
        for label, layer in replaced.items():
            remove_spectral_norm_of_torch(layer, name)
            check_layer(label, layer, name)
        for layer in layers.values():
            _wrap(layer, name, method, iterations, factor, learned, smallest, size)
        FirstForwardHook.register(module)
        containers.watch()
        if example is not None:
            run_example(module, example, strict=is_strict)
    except BaseException:
        before.restore()
        raise
    return module


def spectral_norms(model: nn.Module) -> dict[str, Tensor]:
    """Return the current spectral norm of every layer that :func:`conv_spectral_norm` wrapped, for logging.

    Args:
        model: a wrapped layer or network, or a module that contains wrapped layers.

    Returns:
        The estimated sigma of each trained weight, a lower bound, by the name of the layer in `model` (`""` for `model`
        itself), followed by the name of the parameter if it is not `weight` ("layer.name"). It is not the norm of the
        weight in use, which is `scale`. The values are detached scalars on the device of the layer, so the host waits
        only when they are read. Weights sharded by `fully_shard` are gathered, so all ranks have to call the function.

    Raises:
        TypeError: if `model` is not a module.
        ValueError: if `model` contains no wrapped layer.
        RuntimeError: if a layer has not seen an input yet and was wrapped without `input_size` or `example_input`.

    Example:
        >>> layer = torch.nn.Linear(2, 2, bias=False)
        >>> layer.weight = torch.nn.Parameter(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        >>> model = conv_spectral_norm(torch.nn.Sequential(layer))
        >>> {name: round(float(sigma), 3) for name, sigma in spectral_norms(model).items()}
        {'0': 4.0}
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    sigmas = {}
    with torch.no_grad():
        for label, weight, normalisation in named_spectral_norms(model):
            if not normalisation.has_input_size:
                raise RuntimeError(
                    f"model: expected layers that have seen an input, got {label!r}, which has not; "
                    f"{UNKNOWN_INPUT_SIZE}"
                )
            sigmas[label] = normalisation.sigma(whole(weight))
    if not sigmas:
        raise ValueError("model: expected a module with layers wrapped by conv_spectral_norm, got one without")
    return sigmas


def _wrap(
    layer: nn.Module,
    name: str,
    method: Method,
    iterations: int,
    factor: float,
    learned: bool,
    eps: float,
    size: tuple[int, ...] | None,
) -> None:
    """Normalise a parameter of a layer, see :func:`conv_spectral_norm`."""
    weight = getattr(layer, name)
    parametrization = AcceleratedSpectralNorm if method == "conv" else SpectralNorm
    normalisation = parametrization(
        _operator_of(layer, method),
        weight=weight,
        spatial_dims=0 if method == "matrix" else spatial_dims(layer),
        n_power_iterations=iterations,
        scale=nn.Parameter(weight.new_full((), factor)) if learned else factor,
        eps=eps,
    )
    IterationHook.remove(layer, name)  # left by an earlier normalisation that has been removed
    # unsafe=True skips a check that reads the weight, which is not defined before the input size is known.
    parametrize.register_parametrization(layer, name, normalisation, unsafe=True)
    if size is not None or not normalisation.spatial_dims:
        normalisation.initialise(weight, normalisation.operator.vector_shape(size or ()))
    layer.register_forward_pre_hook(IterationHook(name), with_kwargs=True)


def _operator_of(layer: nn.Module, method: Method) -> operators.LinearOperator:
    """Return the operator whose norm a method divides by."""
    if method != "matrix" and isinstance(layer, CONVOLUTIONS):
        return operators.ConvolutionOperator.from_layer(layer)
    return operators.MatrixOperator.from_layer(layer)  # type: ignore[arg-type]
