"""Probes: each asks one question of a library and answers it by a computation.

A probe returns true or false, a number to print, or None if the library has no call for it. What a library raises is an
answer too: the table says "error".
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from memory import peak
from torch import Tensor, nn

from compared.libraries import LIBRARIES, Library, Value

Answer = bool | float | None
Probe = Callable[[Library], Answer]

POPULATIONS = ([[0.0, 0.3], [1.0, -0.4], [0.2, 1.5]], [[0.5, 0.1], [-1.2, 0.7], [0.9, 0.9]])
"""Two populations of three samples, from which all draws of two are made."""

LARGE = (4096, 8)
"""Number of samples of each group, and dimension, whose memory is measured."""

ROUNDING = 1e-8


def samples(m: int = 7, n: int = 7, d: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Return two samples that are neither equal nor far apart."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(m, d, generator=generator, dtype=torch.float64)
    y = 1.3 * torch.randn(n, d, generator=generator, dtype=torch.float64) + 0.5
    return x.to(dtype), y.to(dtype)


def unbiased(kernel: Value, x: Tensor, y: Tensor) -> Tensor:
    """Return the unbiased MMD^2 with a kernel, written out."""
    total = -2 * kernel(x, y).mean()
    for z in (x, y):
        gram = kernel(z, z)
        total = total + (gram.sum() - gram.trace()) / (len(z) * (len(z) - 1))
    return total


def biased(kernel: Value, x: Tensor, y: Tensor) -> Tensor:
    """Return the biased MMD^2 with a kernel, written out."""
    return kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()


def with_diagonals(kernel: Value, x: Tensor, y: Tensor) -> Tensor:
    """Return the unbiased MMD^2 plus the diagonals that some code leaves in its sums."""
    return unbiased(kernel, x, y) + sum(kernel(z, z).diagonal().mean() / (len(z) - 1) for z in (x, y))


FORMS = (unbiased, biased, with_diagonals)


def draws(first: int, second: int) -> list[tuple[Tensor, Tensor]]:
    """Return all draws of two samples from each of two populations."""
    x, y = (torch.tensor(POPULATIONS[index], dtype=torch.float64) for index in (first, second))
    pairs = [list(pair) for pair in product(range(3), repeat=2)]
    return [(x[i], y[j]) for i in pairs for j in pairs]


def is_unbiased(library: Library) -> Answer:
    """Whether the mean over all draws is MMD^2 of the populations."""
    expected = biased(library.kernel, *(torch.tensor(rows, dtype=torch.float64) for rows in POPULATIONS))
    found = torch.stack([library.value(x, y).double() for x, y in draws(0, 1)]).mean()
    return bool((found - expected).abs() < 1e-6)


def may_be_negative(library: Library) -> Answer:
    """Whether a draw whose unbiased estimate is negative gets a negative value; a biased estimate has none."""
    if _form(library) is biased:
        return None
    least = min(draws(0, 0), key=lambda pair: float(unbiased(library.kernel, *pair)))
    return bool(library.value(*least) < -0.01)


def takes_different_sizes(library: Library) -> Answer:
    """Whether seven and four samples get the estimate from all of their pairs."""
    x, y = samples(7, 4)
    found = library.value(x, y).double()
    return any(bool((found - form(library.kernel, x, y)).abs() < 1e-6) for form in FORMS)


def _form(library: Library) -> Callable[[Value, Tensor, Tensor], Tensor]:
    """Return the estimator that the library's value is nearest to."""
    x, y = samples()
    found = library.value(x, y).double()
    return min(FORMS, key=lambda form: float((found - form(library.kernel, x, y)).abs()))


def has_gradient(library: Library) -> Answer:
    """Whether the gradient is that of the double sum."""
    x, y = (sample.requires_grad_() for sample in samples())
    found = torch.autograd.grad(library.value(x, y), (x, y))
    expected = torch.autograd.grad(_form(library)(library.kernel, x, y), (x, y))
    return all(bool((a - b).abs().max() < ROUNDING) for a, b in zip(found, expected, strict=True))


def has_second_derivative(library: Library) -> Answer:
    """Whether the gradient of the squared gradient is that of the double sum."""
    x, y = (sample.requires_grad_() for sample in samples())

    def second(value: Tensor) -> Tensor:
        (first,) = torch.autograd.grad(value, x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    difference = second(library.value(x, y)) - second(_form(library)(library.kernel, x, y))
    return bool(difference.abs().max() < ROUNDING)


def keeps_digits_of_bfloat16(library: Library) -> Answer:
    """Whether bfloat16 samples get the value of the same samples in float32."""
    x, y = samples(dtype=torch.bfloat16)
    return bool((library.value(x, y).float() - library.value(x.float(), y.float())).abs() < 1e-4)


def keeps_digits_under_autocast(library: Library) -> Answer:
    """Whether float32 samples get the same value under autocast."""
    x, y = samples(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = library.value(x, y)
    return bool((found.float() - library.value(x, y)).abs() < 1e-4)


def keeps_digits_far_away(library: Library) -> Answer:
    """Whether float32 samples 1000 standard deviations from the origin keep their value within one per cent."""
    x, y = (sample + 1000 for sample in samples(64, 64, dtype=torch.float32))
    exact = _form(library)(library.kernel, x.double(), y.double())
    return bool((library.value(x, y).double() - exact).abs() < 0.01 * exact.abs())


def survives_collapse(library: Library) -> Answer:
    """Whether equal samples get a finite value and gradient."""
    x, y = (torch.ones(5, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    value = library.value(x, y)
    return all(bool(found.isfinite().all()) for found in (value, *torch.autograd.grad(value, (x, y))))


def shows_nan(library: Library) -> Answer:
    """Whether NaN in a sample makes the value NaN, or an error."""
    x, y = samples()
    x[2, 1] = float("nan")
    try:
        return bool(library.value(x, y).isnan())
    except Exception:  # an error says more than NaN
        return True


def refuses_one_sample(library: Library) -> Answer:
    """Whether a single sample, which has a biased estimate but no unbiased one, is an error."""
    if _form(library) is biased:
        return None
    x, y = samples(1, 1)
    try:
        library.value(x, y)
    except Exception:
        return True
    return False


def takes_weights(library: Library) -> Answer:
    """Whether a sample of weight three counts as three."""
    if library.weighted is None:
        return None
    x, y = samples()
    weights = torch.ones(7, dtype=torch.float64)
    weights[0] = 3
    repeated = torch.cat([x, x[:1], x[:1]])
    return bool((library.weighted(x, y, weights) - biased(library.kernel, repeated, y)).abs() < 1e-6)


def takes_groups(library: Library) -> Answer:
    """Whether groups in a batch get the values of each by itself."""
    if library.groups is None:
        return None
    x, y = (torch.stack([sample, sample.flip(0) * 1.1, sample - 0.3]) for sample in samples())
    alone = torch.stack([library.value(a, b) for a, b in zip(x, y, strict=True)])
    return bool((library.groups(x, y) - alone).abs().max() < ROUNDING)


def has_linear_time(library: Library) -> Answer:
    """Whether there is an estimate from pairs of neighbours, each of which takes part in one pair."""
    if library.linear_time is None:
        return None
    x, y = samples(8, 8)
    first, second = slice(0, None, 2), slice(1, None, 2)
    of_pairs = [library.kernel(a[first], b[second]).diagonal() for a, b in ((x, x), (y, y), (x, y), (y, x))]
    expected = (of_pairs[0] + of_pairs[1] - of_pairs[2] - of_pairs[3]).mean()
    return bool((library.linear_time(x, y) - expected).abs() < ROUNDING)


def compiles(library: Library) -> Answer:
    """Whether value and gradient compile into one graph."""
    x, y = (sample.requires_grad_() for sample in samples(dtype=torch.float32))
    torch.compiler.reset()
    compiled = torch.compile(library.value, fullgraph=True, backend="eager")
    found = compiled(x, y)
    (slope,) = torch.autograd.grad(found, x)
    return bool((found - library.value(x, y)).abs() < 1e-5 and slope.isfinite().all())


def has_gan_losses(library: Library) -> Answer:
    """Whether there are losses of both players, of which the discriminator's is not minus the generator's."""
    if library.gan is None:
        return None
    of_discriminator, of_generator = library.gan(*samples())
    return bool((of_discriminator + of_generator).abs() > 1e-3)


def normalises_convolutions(library: Library) -> Answer:
    """Whether a strided convolution gets the norm 1 as a map of images, from a dense matrix."""
    if library.wrapped is None:
        return None
    torch.manual_seed(0)
    images = torch.eye(2 * 6 * 6).reshape(-1, 2, 6, 6)
    layer = library.wrapped(nn.Conv2d(2, 3, 4, stride=2, padding=1, bias=False), images[:1])
    for _ in range(100):
        layer(images[:1])
    matrix = layer.eval()(images).flatten(1)
    return bool((torch.linalg.matrix_norm(matrix, 2) - 1).abs() < 0.01)


def has_p_value(library: Library) -> Answer:
    """Whether a clear difference gets a p-value of at most 0.05 and no difference a larger one."""
    if library.p_value is None:
        return None
    torch.manual_seed(0)
    x, y = samples(30, 30)
    return library.p_value(x, y + 5) <= 0.05 < library.p_value(x, x + 1e-3)


def p_value_is_not_zero(library: Library) -> Answer:
    """Whether the p-value of samples that are far apart is above zero, as that of a valid test is."""
    if library.p_value is None:
        return None
    torch.manual_seed(0)
    x, y = samples(30, 30)
    return library.p_value(x, y + 50) > 0


def tests_different_sizes(library: Library) -> Answer:
    """Whether a clear difference between thirty and twenty samples gets a p-value of at most 0.05."""
    if library.p_value is None:
        return None
    torch.manual_seed(0)
    x, y = samples(30, 20)
    return library.p_value(x, y + 5) <= 0.05


def shows_nan_in_a_test(library: Library) -> Answer:
    """Whether NaN in a sample makes the p-value NaN, or an error."""
    if library.p_value is None:
        return None
    x, y = samples(30, 30)
    x[2, 1] = float("nan")
    try:
        found = library.p_value(x, y)
    except Exception:  # an error says more than NaN
        return True
    return found != found


def is_typed(library: Library) -> Answer:
    """Whether the package says that it has types."""
    names = {"pytorch-ignite": "ignite"}
    package = names.get(library.package, library.package.replace("-", "_"))
    spec = importlib.util.find_spec(package)
    folders = [] if spec is None else spec.submodule_search_locations or []
    return any((Path(folder) / "py.typed").is_file() for folder in folders)


def megabytes(name: str, script: Path) -> float:
    """Return the megabytes that value and gradient of large samples need, in a new process."""
    words = [sys.executable, str(script), "--one", name]
    finished = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    return float(json.loads(finished.stdout.splitlines()[-1]))  # libraries may print above it


def megabytes_here(name: str) -> float:
    """Return the megabytes that value and gradient need in this process, which should be a new one."""
    library = LIBRARIES[name]()

    def work(n: int) -> Callable[[], object]:
        x, y = (sample.requires_grad_(library.trains) for sample in samples(n, n, LARGE[1], torch.float32))

        def run() -> None:
            value = library.value(x, y)
            if library.trains:
                value.backward()

        return run

    work(300)()  # loads code
    return peak(work(LARGE[0])).bytes / 1e6


def quiet(ask: Callable[[], Answer | str]) -> tuple[Answer | str, str]:
    """Return an answer, and the error if it raised one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ask(), ""
    except Exception as problem:  # whatever a library raises is the answer
        words = str(problem).strip().splitlines() or [""]
        return "error", f"{type(problem).__name__}: {words[0][:120]}"


LOSS: dict[str, Probe] = {
    "unbiased: the mean over all draws of a population is MMD²": is_unbiased,
    "negative values are not clamped": may_be_negative,
    "samples of different sizes": takes_different_sizes,
    "gradient of the double sum, float64": has_gradient,
    "second derivative": has_second_derivative,
    "bfloat16 samples keep the digits of float32": keeps_digits_of_bfloat16,
    "autocast keeps the digits of float32": keeps_digits_under_autocast,
    "1000 deviations from the origin: within 1 %": keeps_digits_far_away,
    "all samples equal: finite gradient": survives_collapse,
    "NaN among the samples shows": shows_nan,
    "one sample is an error": refuses_one_sample,
    "weighted samples": takes_weights,
    "many groups in one call": takes_groups,
    "estimate in linear time": has_linear_time,
    "compiles into one graph": compiles,
    "GAN losses of both players": has_gan_losses,
    "norm of a convolution as a map of images": normalises_convolutions,
    "types (`py.typed`)": is_typed,
}

METRIC: dict[str, Probe] = {
    name: LOSS[name]
    for name in (
        "unbiased: the mean over all draws of a population is MMD²",
        "negative values are not clamped",
        "samples of different sizes",
        "bfloat16 samples keep the digits of float32",
        "NaN among the samples shows",
        "one sample is an error",
        "types (`py.typed`)",
    )
}

TEST: dict[str, Probe] = {
    "p-value by permutations": has_p_value,
    "p-value is never 0": p_value_is_not_zero,
    "samples of different sizes": tests_different_sizes,
    "NaN among the samples shows": shows_nan_in_a_test,
    "types (`py.typed`)": is_typed,
}
