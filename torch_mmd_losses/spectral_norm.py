"""Spectral normalisation by power iteration on the true convolution (PICO)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from torch_mmd_losses import _checks
from torch_mmd_losses import _operators as operators
from torch_mmd_losses._readonly import protect

_UNKNOWN_SIZE = (
    "the norm of a convolution depends on its input size: run a forward through the layer first, or wrap it with "
    "input_size= (and initialise weights before conv_spectral_norm)"
)

Method = Literal["conv", "matrix"]
Module = TypeVar("Module", bound=nn.Module)


class _SpectralNorm(nn.Module):
    """The parametrization `weight -> scale * weight / sigma(weight)`.

    Its state is `v`, the current right singular vector, empty as long as the layer's input size is not known. `v` only
    moves in :meth:`before_forward`; reading the weight evaluates `sigma = |A v|` for the weight as it is now.
    """

    v: Tensor

    def __init__(
        self,
        operator: operators.Operator,
        *,
        spatial_dims: int,
        n_power_iterations: int,
        scale: float | nn.Parameter,
        eps: float,
    ) -> None:
        super().__init__()
        self.operator = operator
        self.spatial_dims = spatial_dims
        self.n_power_iterations = n_power_iterations
        self.scale = scale
        self.eps = eps
        self.register_buffer("v", torch.empty(0))

    def forward(self, weight: Tensor) -> Tensor:
        precise = _at_least_float32(weight)
        scale = _at_least_float32(self.scale) if isinstance(self.scale, Tensor) else self.scale
        sigma = self.sigma(weight)
        # A zero weight stays zero, and learns: a tiny sigma instead of one would make its gradient as large as 1 / eps.
        normalised = precise * (scale / torch.where(sigma > self.eps, sigma, 1))
        return protect(normalised.to(weight.dtype))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Take an assigned weight as the new trained weight; the old singular vector says nothing about it."""
        if self.v.numel():
            self.start(weight, self.v.shape)
        return weight

    def sigma(self, weight: Tensor) -> Tensor:
        """Return the norm of the layer along `v`, differentiable in the weight, at least in float32."""
        if not self.v.numel():
            raise RuntimeError(f"conv_spectral_norm: the weight cannot be used yet; {_UNKNOWN_SIZE}")
        with _checks.full_precision(weight.device):
            precise = _at_least_float32(weight)
            # A copy, since v moves in place while the graph of an earlier forward may still need it.
            return operators.norm_along(self.operator, precise, self.v.to(precise.dtype, copy=True))

    def start(self, weight: Tensor, domain: Sequence[int]) -> None:
        """Set `v` for a weight of which nothing is known yet."""
        with torch.no_grad(), torch.inference_mode(False), _checks.full_precision(weight.device):
            precise = _at_least_float32(weight.detach())
            self.v = operators.top_singular_vector(self.operator, precise, domain)

    def before_forward(self, weight: Tensor, x: Tensor, training: bool) -> None:
        """Move `v` by the power iterations of one training forward, or make it if this is the first forward."""
        if not self.v.numel():
            if self.spatial_dims and x.dim() not in (self.spatial_dims + 1, self.spatial_dims + 2):
                raise ValueError(
                    f"input: expected {self.spatial_dims} spatial dimensions after (batch and) channels, "
                    f"got shape {tuple(x.shape)}"
                )
            self.start(weight, self.operator.domain(x.shape[x.dim() - self.spatial_dims :]))
        elif training:
            with torch.no_grad(), torch.inference_mode(False), _checks.full_precision(weight.device):
                precise = _at_least_float32(weight.detach())
                v = self.v.to(precise.dtype)
                self.v.copy_(operators.power_iteration(self.operator, precise, v, self.n_power_iterations))

    def extra_repr(self) -> str:
        scale = "learned" if isinstance(self.scale, Tensor) else self.scale
        return f"domain={tuple(self.v.shape) or None}, n_power_iterations={self.n_power_iterations}, scale={scale}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _SpectralNorm:
        was_meta = self.v.is_meta
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # A module cast to half precision keeps iterating in float32; one that leaves the meta device starts anew.
        self.v = self.v.new_empty(0) if was_meta and not self.v.is_meta else _at_least_float32(self.v)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401
        # The size of v is part of the state: a fresh model that never ran takes it from the checkpoint. A checkpoint
        # without it brings another weight, about which the old vector says nothing.
        stored = state_dict.get(prefix + "v", self.v.new_empty(0))
        if stored.shape != self.v.shape:
            self.v = torch.empty_like(stored, device=self.v.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.v = self.v.clone()  # with assign=True it would be the checkpoint's own, and move in place


class _BeforeForward:
    """Forward pre-hook that moves the singular vector: once for each forward of the layer, however often it is read."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        normalisation = _normalisation(layer, self.name)
        if normalisation is None:
            self.remove(layer, self.name)
        else:
            x = args[0] if args else next(iter(kwargs.values()))
            normalisation.before_forward(_parametrizations(layer, self.name).original, x, layer.training)

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
    padding mode, dilation, groups and output padding. :math:`\sigma` is found by power iteration on that map (PICO),
    :math:`v \leftarrow W^T * W * v` and normalise, as :math:`\lVert W * v \rVert` with :math:`v` held constant in the
    gradient. It approaches the norm from below, so a layer in use is Lipschitz with a constant slightly above `scale`:
    while the weights move fast the estimate can be some per cent too low, and it catches up as they slow down.

    The iteration advances by `n_power_iterations` for each forward of the layer in training mode; reading `.weight`
    does not move it, and in eval mode nothing moves. It starts from a Lanczos approximation that is made here, or at
    the first forward (in either mode) where the input size is not known before, without using random numbers: all
    processes of a distributed job start alike. The norm belongs to that first input size; inputs of other sizes are
    accepted and normalised by the same number, so let the first forward have the size that matters.

    `layer.weight` cannot be changed in place (`nn.init`), because it is computed; `layer.weight = tensor` takes effect
    and starts the iteration anew. `torch.nn.utils.parametrize.remove_parametrizations(layer, name)` leaves the
    normalised weight. Everything is computed at least in float32.

    Args:
        module: a `Linear`, `Conv1d/2d/3d` or `ConvTranspose1d/2d/3d` layer, or a module that contains such layers, each
            of which is wrapped.
        name: the parameter to normalise.
        input_size: spatial size of the layer's input, without batch and channels, as one number for all dimensions or
            one for each; None takes it from the first forward. Only for a single convolution with `method="conv"`.
        n_power_iterations: iterations for each training forward, >= 1.
        method: `"conv"` for the norm of the convolution itself, which depends on the input size; `"matrix"` for that
            of the weight reshaped to (output channels) x (everything else), as Miyato et al. do, which is smaller.
            They are the same for `Linear`. With groups, both are the largest group's.
        scale: the factor `C`, > 0. With `C = 1` the signal fades from layer to layer; the authors of Wang et
            al. recommend 1 / 0.55.
        learn_scale: make `scale` a parameter, initialised to the given number (the spectral parametrisation of Arbel
            et al.). Create the optimiser after wrapping.
        eps: sigma up to which a weight counts as zero and is only multiplied by `scale`, > 0.

    Returns:
        `module` itself, changed in place. `state_dict` holds, for each layer, `parametrizations.<name>.original`,
        `parametrizations.<name>.0.v` and, if learned, `parametrizations.<name>.0.scale`.

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
        Wang et al. (2019), Section 4.2 and Appendix C (B.1 of the submission); Miyato et al. (2018), Algorithm 1, for
        `method="matrix"`; Arbel et al. (2018), Section 3, for `learn_scale`.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    _checks.one_of("method", method, ("conv", "matrix"))
    if not isinstance(n_power_iterations, int) or isinstance(n_power_iterations, bool):
        raise TypeError(f"n_power_iterations: expected an integer, got {n_power_iterations!r}")
    if n_power_iterations < 1:
        raise ValueError(f"n_power_iterations: expected an integer >= 1, got {n_power_iterations}")
    factor, smallest = _checks.positive_number("scale", scale), _checks.positive_number("eps", eps)
    layers = _layers(module)
    for label, layer in layers.items():
        _check_layer(label, layer, name)
    size = _check_input_size(input_size, layers, method, name)
    for layer in layers.values():
        weight = getattr(layer, name)
        normalisation = _SpectralNorm(
            _operator(layer, method),
            spatial_dims=0 if method == "matrix" else _spatial_dims(layer),
            n_power_iterations=n_power_iterations,
            scale=nn.Parameter(weight.new_tensor(factor)) if learn_scale else factor,
            eps=smallest,
        )
        _BeforeForward.remove(layer, name)  # of an earlier normalisation that has been removed
        # unsafe leaves out a check that reads the weight, which is not defined before the input size is known.
        parametrize.register_parametrization(layer, name, normalisation, unsafe=True)
        if size is not None or not normalisation.spatial_dims:
            normalisation.start(weight, normalisation.operator.domain(size or ()))
        layer.register_forward_pre_hook(_BeforeForward(name), with_kwargs=True)
    return module


def spectral_norms(model: nn.Module) -> dict[str, Tensor]:
    """Return the current spectral norm of every layer that :func:`conv_spectral_norm` wrapped, for logging.

    Args:
        model: a wrapped layer or network, or a module that contains such.

    Returns:
        The estimate of sigma of the trained weight (not of the weight in use, whose norm is `scale`) by the name of
        the layer in `model`, `""` for `model` itself; detached scalars, so that reading them is the only host
        synchronisation.

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
                normalisation = _normalisation(layer, name)
                if normalisation is not None:
                    if not normalisation.v.numel():
                        raise RuntimeError(f"model: layer {label!r} has not seen an input yet; {_UNKNOWN_SIZE}")
                    sigmas[label] = normalisation.sigma(_parametrizations(layer, name).original)
    if not sigmas:
        raise ValueError("model: expected a module with layers wrapped by conv_spectral_norm, found none")
    return sigmas


def _layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers to wrap by name; a layer that occurs twice is one layer."""
    if isinstance(module, operators.LAYERS):
        return {type(module).__name__: module}
    layers: dict[str, nn.Module] = {
        label: layer for label, layer in module.named_modules() if isinstance(layer, operators.LAYERS)
    }
    if not layers:
        kinds = ", ".join(kind.__name__ for kind in operators.LAYERS)
        raise ValueError(f"module: expected a layer, or a module with layers, of {kinds}; got {type(module).__name__}")
    return layers


def _check_layer(label: str, layer: nn.Module, name: str) -> None:
    if parametrize.is_parametrized(layer, name):
        raise ValueError(f"module: expected layers whose {name!r} is not parametrized yet, but that of {label!r} is")
    if isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
        raise ValueError(
            f"module: {label!r} belongs to a torch.nn.MultiheadAttention, which reads its weight without calling it, "
            "so its norm could not be followed; wrap the other layers one by one"
        )
    weight, own = getattr(layer, name, None), layer.weight
    if isinstance(weight, UninitializedParameter):
        raise ValueError(f"module: {label!r} has no shape yet; run a forward through lazy layers before wrapping them")
    if isinstance(weight, Tensor) and not isinstance(weight, nn.Parameter):
        raise ValueError(
            f"name: {name!r} of layer {label!r} is no parameter but computed, by a hook such as "
            "torch.nn.utils.spectral_norm or pruning; remove that first"
        )
    if weight is None or not weight.is_floating_point() or weight.shape != own.shape:
        raise ValueError(
            f"name: expected a floating-point parameter of layer {label!r} shaped like its weight, got {name!r}"
        )


def _check_input_size(
    input_size: int | Sequence[int] | None, layers: dict[str, nn.Module], method: Method, name: str
) -> tuple[int, ...] | None:
    if input_size is None:
        return None
    dims = [_spatial_dims(layer) for layer in layers.values()]
    if len(dims) != 1 or dims == [0] or method != "conv":
        raise ValueError(
            "input_size: expected None unless module is a single convolution and method='conv': it is the size of one "
            f"layer's input, got {input_size!r} for {len(dims)} layer(s) with method={method!r}"
        )
    try:
        lengths = input_size if isinstance(input_size, Sequence) else (input_size,) * dims[0]
        size = tuple(map(operator.index, lengths))
    except TypeError:
        size = ()
    if len(size) != dims[0] or min(size) < 1:
        raise ValueError(f"input_size: expected {dims[0]} integer(s) >= 1, without channels, got {input_size!r}")
    for layer in layers.values():
        _check_size_fits(layer, size, name)
    return size


def _check_size_fits(layer: nn.Module, size: tuple[int, ...], name: str) -> None:
    convolution = _operator(layer, "conv")
    weight = getattr(layer, name).detach()
    try:
        convolution.apply(weight.new_zeros(convolution.domain(size)), weight)
    except RuntimeError as error:
        raise ValueError(f"input_size: the layer cannot take an input of size {size}: {error}") from error


def _operator(layer: nn.Module, method: Method) -> operators.Operator:
    if method == "conv" and isinstance(layer, operators.CONVOLUTIONS):
        return operators.ConvolutionOperator.of(layer)
    return operators.MatrixOperator.of(layer)  # type: ignore[arg-type]


def _spatial_dims(layer: nn.Module) -> int:
    return len(layer.kernel_size) if isinstance(layer, operators.CONVOLUTIONS) else 0


def _parametrizations(layer: nn.Module, name: str) -> parametrize.ParametrizationList:
    return layer.parametrizations[name]  # type: ignore[index, return-value]


def _normalisation(layer: nn.Module, name: str) -> _SpectralNorm | None:
    """Return the normalisation of a layer's parameter, or None if there is none or it has been removed."""
    if not parametrize.is_parametrized(layer, name):
        return None
    first = _parametrizations(layer, name)[0]
    return first if isinstance(first, _SpectralNorm) else None


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
