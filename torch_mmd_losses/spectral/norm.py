"""Spectral normalisation by the norm of the true convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from torch_mmd_losses import checks
from torch_mmd_losses.spectral import operators
from torch_mmd_losses.spectral.accelerated import AcceleratedSpectralNorm
from torch_mmd_losses.spectral.layers import (
    CONVOLUTIONS,
    check_input_size,
    check_layer,
    layers_to_wrap,
    spatial_dims,
)
from torch_mmd_losses.spectral.parametrization import UNKNOWN_INPUT_SIZE, SpectralNorm

Method = Literal["conv", "pico", "matrix"]
Module = TypeVar("Module", bound=nn.Module)


class _IterationHook:
    """Forward pre-hook that moves the singular vector: once for each forward of the layer, however often it is read."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        normalisation = _spectral_norm_of(layer, self.name)
        if normalisation is None:
            self.remove(layer, self.name)
        else:
            x = args[0] if args else kwargs.get("input")
            if x is None:
                return  # the layer itself says what is missing
            normalisation.before_forward(_parametrizations_of(layer, self.name).original, x, layer.training)

    @classmethod
    def remove(cls, layer: nn.Module, name: str) -> None:
        """Remove the hook for a parameter whose normalisation has been removed."""
        for key, hook in list(layer._forward_pre_hooks.items()):
            if isinstance(hook, cls) and hook.name == name:
                del layer._forward_pre_hooks[key]
                del layer._forward_pre_hooks_with_kwargs[key]


def conv_spectral_norm(
    module: Module,
    name: str = "weight",
    *,
    input_size: int | Sequence[int] | None = None,
    n_power_iterations: int = 1,
    method: Method = "conv",
    scale: float = 1.0,
    learn_scale: bool = False,
    eps: float = 1e-12,
) -> Module:
    r"""Normalise the weight of a layer, or of every layer in a network, by its spectral norm.

    The layer then uses

    .. math:: \bar W = C \, W / \sigma(W), \qquad \sigma(W) = \max_v \lVert W * v \rVert / \lVert v \rVert,

    where :math:`*` is what the layer does to its input without the bias: a linear map with its own stride, padding,
    padding mode, dilation, groups and output padding. :math:`\sigma` is found by iteration on that map, as
    :math:`\lVert W * v \rVert` with :math:`v` held constant in the gradient. **It is a lower bound**, so a layer in use
    is Lipschitz with a constant above `scale`: in the first ten steps of training, while the weights move fast, the
    estimate was seen to be 6 per cent too low in the median and 29 at worst, and after twenty steps 0.03 per cent in
    the median and 2 at worst (docs/theory.md, "How exact").

    The iteration advances by `n_power_iterations` in a forward of the layer in training mode. With `method="conv"` the
    first forward after a change of the weight does so, and up to two further ones at the same weight do not: they take
    :math:`\sigma` from the vectors of the first. PyTorch does not count what fused optimisers and writes to `.data` do
    as changes; where no change is seen, every forward iterates, which costs time and nothing else; after a change that
    is seen, the next two forwards do not look for one that is not. Reading `.weight` does not move the iteration, and
    in eval mode nothing moves. It starts from a Lanczos approximation that is made here, or at the first forward (in
    either mode) where the input size is not known before, without using random numbers: all processes of a distributed
    job start alike. The norm belongs to that first input size; inputs of other sizes are accepted and normalised by
    the same number, so let the first forward have the size that matters.

    `layer.weight` cannot be changed in place (`nn.init`), because it is computed; `layer.weight = tensor` takes effect
    and starts the iteration anew. `torch.nn.utils.parametrize.remove_parametrizations(layer, name)` leaves the
    normalised weight. Everything is computed at least in float32.

    Args:
        module: a `Linear`, `Conv1d/2d/3d` or `ConvTranspose1d/2d/3d` layer, or a module that contains such layers, each
            of which is wrapped.
        name: the parameter to normalise.
        input_size: spatial size of the layer's input, without batch and channels, as one number for all dimensions or
            one for each; None takes it from the first forward. Only for a single convolution, and not for
            `method="matrix"`.
        n_power_iterations: iterations for each training forward, >= 1; `method="conv"` does twice as many where they
            cost little, in layers of at most four million multiplications at stride 1.
        method: `"conv"` and `"pico"` for the norm of the convolution itself, which depends on the input size;
            `"matrix"` for that of the weight reshaped to (output channels) x (everything else), as Miyato et al. do,
            which is smaller as a rule. `"pico"` and `"matrix"` do one plain power iteration
            :math:`v \leftarrow W^T * W * v` in every forward, as in the papers. `"conv"` follows the weight more
            closely, over a step of a GAN in less time where layers are large (in small networks it takes more), and
            keeps a tensor as large as the weight. The norms are the same for `Linear`. With groups, they are the
            largest group's.
        scale: the factor `C`, > 0. With `C = 1` the signal fades from layer to layer; the authors of Wang et
            al. recommend 1 / 0.55.
        learn_scale: make `scale` a parameter, initialised to the given number (the spectral parametrisation of Arbel
            et al.). Create the optimiser after wrapping.
        eps: sigma up to which a weight counts as zero and is only multiplied by `scale`, > 0.

    Returns:
        `module` itself, changed in place. `state_dict` holds, for each layer, `parametrizations.<name>.original`,
        `parametrizations.<name>.0.v` and, if learned, `parametrizations.<name>.0.scale`; with `method="conv"` also `u`,
        `direction` and `_extra_state` beside `v`. One without these, from `method="pico"`, can be loaded.

    Raises:
        TypeError: if `module` is no module or a number is of the wrong type.
        ValueError: if `module` contains no such layer, a layer has no such floating-point parameter or is
            parametrized already, `input_size` does not fit, or an option is out of range.

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
            f"name: expected the name of a parameter, got {name!r} (options such as scale= are keyword-only)"
        )
    checks.one_of("method", method, ("conv", "pico", "matrix"))
    iterations = checks.whole_number("n_power_iterations", n_power_iterations, least=1)
    factor, smallest = checks.positive_number("scale", scale), checks.positive_number("eps", eps)
    learned = checks.flag("learn_scale", learn_scale)
    layers = layers_to_wrap(module)
    for label, layer in layers.items():
        check_layer(label, layer, name)
    size = check_input_size(input_size, layers, method, name)
    for layer in layers.values():
        weight = getattr(layer, name)
        parametrization = AcceleratedSpectralNorm if method == "conv" else SpectralNorm
        normalisation = parametrization(
            _operator_of(layer, method),
            spatial_dims=0 if method == "matrix" else spatial_dims(layer),
            n_power_iterations=iterations,
            scale=nn.Parameter(weight.new_tensor(factor)) if learned else factor,
            eps=smallest,
        )
        _IterationHook.remove(layer, name)  # of an earlier normalisation that has been removed
        # unsafe leaves out a check that reads the weight, which is not defined before the input size is known.
        parametrize.register_parametrization(layer, name, normalisation, unsafe=True)
        if size is not None or not normalisation.spatial_dims:
            normalisation.initialise(weight, normalisation.operator.vector_shape(size or ()))
        layer.register_forward_pre_hook(_IterationHook(name), with_kwargs=True)
    return module


def spectral_norms(model: nn.Module) -> dict[str, Tensor]:
    """Return the current spectral norm of every layer that :func:`conv_spectral_norm` wrapped, for logging.

    Args:
        model: a wrapped layer or network, or a module that contains such.

    Returns:
        The estimate of sigma, a lower bound, of the trained weight (not of the weight in use, whose norm is `scale`) by
        the name of the layer in `model`, `""` for `model` itself; detached scalars, so that reading them is the only
        host synchronisation.

    Raises:
        ValueError: if `model` contains no wrapped layer.
        RuntimeError: if a layer has not seen its input size yet.

    Example:
        >>> layer = torch.nn.Linear(2, 2, bias=False)
        >>> layer.weight = torch.nn.Parameter(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        >>> model = conv_spectral_norm(torch.nn.Sequential(layer))
        >>> {name: round(float(sigma), 3) for name, sigma in spectral_norms(model).items()}
        {'0': 4.0}
    """
    sigmas = {}
    with torch.no_grad():
        for label, layer in model.named_modules():
            for name in getattr(layer, "parametrizations", {}):
                normalisation = _spectral_norm_of(layer, name)
                if normalisation is not None:
                    if not normalisation.v.numel():
                        raise RuntimeError(
                            f"model: expected layers that have seen an input, got {label!r}, which has not; "
                            f"{UNKNOWN_INPUT_SIZE}"
                        )
                    sigmas[label] = normalisation.sigma(_parametrizations_of(layer, name).original)
    if not sigmas:
        raise ValueError("model: expected a module with layers wrapped by conv_spectral_norm, got one without")
    return sigmas


def _operator_of(layer: nn.Module, method: Method) -> operators.LinearOperator:
    if method != "matrix" and isinstance(layer, CONVOLUTIONS):
        return operators.ConvolutionOperator.from_layer(layer)
    return operators.MatrixOperator.from_layer(layer)  # type: ignore[arg-type]


def _parametrizations_of(layer: nn.Module, name: str) -> parametrize.ParametrizationList:
    return layer.parametrizations[name]  # type: ignore[index, return-value]


def _spectral_norm_of(layer: nn.Module, name: str) -> SpectralNorm | None:
    """Return the normalisation of a layer's parameter, or None if there is none or it has been removed."""
    if not parametrize.is_parametrized(layer, name):
        return None
    first = _parametrizations_of(layer, name)[0]
    return first if isinstance(first, SpectralNorm) else None
