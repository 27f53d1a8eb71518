"""Is any other library faster at the same loss with its gradient?

Peers are the alternatives for an eager PyTorch program: libraries of the package index whose MMD with a Gaussian kernel
can be differentiated, and three ways to write it by hand. Each peer is called with its own conventions and converted to
sums of exp(-|a - b|^2 / (2 sigma^2)) and to MMD^2 itself. Before it is timed, its value and gradients are compared with
those of this library in float64. The library uses the estimator of the peer. A peer that is not installed, or would
need more than 6 GB, is left out. A peer that takes ten times as long as the library in the first rounds is not timed
further.

Not peers: PyTorch-Ignite and TorchDrift detach the samples, so nothing can be trained with them; torchmetrics has the
polynomial kernel of KID only; SKADA's kernel is a function of the distance, not of its square.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from itertools import product
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from bare_import import bare
from by_hand import Loss, bandwidths, by_cdist, by_differences, gaussians, plain, samples, step
from common import Options, Record, Target, cpu_seconds, main, markdown, medians, progress
from torch import Tensor

from torch_mmd_losses import RBFKernel, RBFMix, mmd2

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = tuple(product((16, 64, 256, 1024, 4096), (1, 16, 128, 2048)))
QUICK = ((8, 1), (8, 3))

TOLERANCE = 1e-6
"""The largest relative error of a peer's value and gradient in float64, before it counts as another loss."""
MOST = 6e9
HOPELESS = 10.0


Estimator = Literal["biased", "unbiased"]
Sigmas = tuple[float, ...]


class Peer(NamedTuple):
    """Something to compare with: MMD^2 by `estimator`, and about how many numbers `(n, d)` it holds at once."""

    estimator: Estimator
    loss: Loss
    numbers: Callable[[int, int], int]


def grams(parts: int) -> Callable[[int, int], int]:
    """Return the size of three Gram matrices, with the tensors that autograd keeps for each of the kernels."""
    return lambda n, d: 3 * n * n * (4 + 3 * parts)


def differences(n: int, d: int) -> int:
    """Return the numbers that all differences hold, with their squares and gradients."""
    return 6 * n * n * d


def by_hand_plain(sigmas: Sigmas) -> Peer:
    """Return three Gram matrices from matrix products."""
    return Peer("biased", plain(gaussians(sigmas)), grams(len(sigmas)))


def by_hand_cdist(sigmas: Sigmas) -> Peer:
    """Return three Gram matrices from `torch.cdist`."""
    return Peer("biased", by_cdist(gaussians(sigmas)), grams(len(sigmas)))


def by_hand_differences(sigmas: Sigmas) -> Peer:
    """Return the tensor of all differences of stacked samples, as much of the code for domain adaptation has it."""
    return Peer("biased", by_differences(gaussians(sigmas)), lambda n, d: 4 * n * n * (3 * d + 2 + 3 * len(sigmas)))


def geomloss(sigmas: Sigmas) -> Peer:
    """Return geomloss with its own kernel, whose value is half of MMD^2, once for each bandwidth."""
    samples_loss = importlib.import_module("geomloss").SamplesLoss
    losses = [samples_loss("gaussian", blur=sigma, backend="tensorized") for sigma in sigmas]

    def loss(real: Tensor, fake: Tensor) -> Tensor:
        return 2 * torch.stack([part(real, fake) for part in losses]).sum()

    return Peer("biased", loss, grams(len(sigmas)))


def geomloss_kernel(sigmas: Sigmas) -> Peer:
    """Return geomloss with a kernel passed in, of batches of samples `(b, n, d)`."""
    kernel = gaussians(sigmas)

    def gram(a: Tensor, b: Tensor, **_: Any) -> Tensor:  # noqa: ANN401
        squares = a.square().sum(-1, keepdim=True) + b.square().sum(-1).unsqueeze(-2)
        return kernel((squares - 2 * a @ b.transpose(-2, -1)).clamp_min(0))

    samples_loss = importlib.import_module("geomloss").SamplesLoss
    half = samples_loss("gaussian", kernel=gram, backend="tensorized")
    return Peer("biased", lambda real, fake: 2 * half(real, fake), grams(len(sigmas)))


def alibi_detect(sigmas: Sigmas) -> Peer:
    """Return alibi-detect, whose kernel is the mean over bandwidths."""
    distance = bare("alibi_detect.utils.pytorch.distance")
    gaussian_rbf = bare("alibi_detect.utils.pytorch.kernels").GaussianRBF
    modules = {dtype: gaussian_rbf(torch.tensor(sigmas, dtype=dtype)) for dtype in (torch.float32, torch.float64)}

    def loss(real: Tensor, fake: Tensor) -> Tensor:
        value: Tensor = distance.mmd2(real, fake, modules[real.dtype])
        return len(sigmas) * value

    return Peer("unbiased", loss, grams(len(sigmas)))


def pytorch_adapt(sigmas: Sigmas) -> Peer:
    """Return pytorch-adapt, whose kernel is the mean over factors of the squared distance."""
    mmd_loss = bare("pytorch_adapt.layers.mmd_loss").MMDLoss

    def module(dtype: torch.dtype) -> Callable[[Tensor, Tensor], Tensor]:
        scales = torch.tensor([1 / (2 * sigma**2) for sigma in sigmas], dtype=dtype)
        made: Callable[[Tensor, Tensor], Tensor] = mmd_loss(kernel_scales=scales, mmd_type="quadratic", bandwidth=1.0)
        return made

    modules = {dtype: module(dtype) for dtype in (torch.float32, torch.float64)}
    return Peer("unbiased", lambda real, fake: len(sigmas) * modules[real.dtype](real, fake), grams(len(sigmas)))


def sbi(sigmas: Sigmas) -> Peer:
    """Return sbi, which has one bandwidth and holds all differences."""
    if len(sigmas) > 1:
        raise NotImplementedError("one bandwidth only")
    function = bare("sbi.utils.metrics").unbiased_mmd_squared
    return Peer("unbiased", lambda real, fake: function(real, fake, scale=sigmas[0]), differences)


PEERS: dict[str, Callable[[Sigmas], Peer]] = {
    "by hand": by_hand_plain,
    "by hand, cdist": by_hand_cdist,
    "by hand, differences": by_hand_differences,
    "geomloss": geomloss,
    "geomloss, own kernel": geomloss_kernel,
    "alibi-detect": alibi_detect,
    "pytorch-adapt": pytorch_adapt,
    "sbi": sbi,
}


def ours(sigmas: Sigmas, estimator: Estimator) -> Loss:
    """Return this library's loss."""
    kernel = RBFMix(sigmas) if len(sigmas) > 1 else RBFKernel(sigmas[0])
    return lambda real, fake: mmd2(real, fake, kernel, estimator=estimator)


def error(peer: Peer, sigmas: Sigmas, d: int, seed: int) -> float:
    """Return the largest error of the peer's value and gradients in float64, relative to the largest of each."""
    found = []
    for loss in (peer.loss, ours(sigmas, peer.estimator)):
        scores = samples(24, d, seed, torch.float64)
        value = loss(*scores)
        found.append([value, *torch.autograd.grad(value, scores)])
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*found, strict=True))


def present(sigmas: Sigmas, d: int, seed: int) -> tuple[dict[str, Peer], list[Record]]:
    """Return the peers that can be timed, and why others cannot."""
    peers, left_out = {}, []
    for name, make in PEERS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                peer = make(sigmas)
                wrong = error(peer, sigmas, d, seed)
        except ImportError as problem:
            left_out.append({"peer": name, "why": f"not installed ({problem.name})"})
        except NotImplementedError as problem:
            left_out.append({"peer": name, "why": str(problem)})
        else:
            if wrong < TOLERANCE:
                peers[name] = peer
            else:
                left_out.append({"peer": name, "why": f"another loss, relative error above {TOLERANCE:g} in float64"})
    return peers, left_out


def compare(n: int, d: int, kernel: str, options: Options) -> list[Record]:
    """Return a record for each peer: its seconds, and those of this library with the same estimator."""
    progress(n, d, kernel)
    sigmas = bandwidths(d)[kernel]
    place = {"n": n, "d": d, "kernel": kernel}
    peers, left_out = present(sigmas, d, options.seed)
    records = [{**place, **record} for record in left_out]
    scores = samples(n, d, options.seed)
    mine = {name: step(ours(sigmas, name), *scores) for name in get_args(Estimator)}
    first = {name: _first(work) for name, work in mine.items()}
    theirs = {}
    for name, peer in peers.items():
        size = 4.0 * peer.numbers(n, d)
        if size > MOST:
            records.append({**place, "peer": name, "why": f"needs more than {MOST / 1e9:.0f} GB"})
            continue
        work = step(peer.loss, *scores)
        took = _first(work)
        if took > HOPELESS * first[peer.estimator]:
            records.append({**place, "peer": name, "seconds": took, "ours": first[peer.estimator], "rough": True})
        else:
            theirs[name] = work
    timed = medians({**mine, **theirs}, options.seconds)
    for name in theirs:
        records.append({**place, "peer": name, "seconds": timed[name], "ours": timed[peers[name].estimator]})
    return records


def _first(work: Callable[[], None]) -> float:
    """Return the approximate time of a call; short work is called again, since its first call is mostly set-up."""
    took = cpu_seconds(work)
    return took if took > 1 else min(cpu_seconds(work) for _ in range(2))


def measure(options: Options) -> list[Record]:
    """Return the records of all sizes."""
    sizes = options.sizes(SIZES, QUICK)
    return [record for kernel in ("RBF", "5 RBF") for n, d in sizes for record in compare(n, d, kernel, options)]


def best(records: list[Record]) -> dict[tuple[str, int, int], Record]:
    """Return the peer that comes closest, for each kernel, dimension and number of samples."""
    found: dict[tuple[str, int, int], Record] = {}
    for r in records:
        place = (r["kernel"], r["d"], r["n"])
        if "seconds" in r and (place not in found or ratio(r) > ratio(found[place])):
            found[place] = r
    return found


def ratio(record: Record) -> float:
    """Return this library's time in that of a peer."""
    return float(record["ours"] / record["seconds"])


def table(records: list[Record]) -> str:
    """Return, for each kernel, the library's time in that of the best peer, by number of samples and dimension."""
    found = best(records)
    numbers = sorted({n for _, _, n in found})
    parts = []
    for kernel in dict.fromkeys(kernel for kernel, _, _ in found):
        rows = []
        for d in sorted({d for name, d, _ in found if name == kernel}):
            cells = [found[kernel, d, n] for n in numbers]
            marks = ["**slower** " if ratio(cell) > 1 else "" for cell in cells]
            rows.append(
                [str(d), *(f"{mark}{ratio(c):.2f} ({c['peer']})" for mark, c in zip(marks, cells, strict=True))]
            )
        parts.append(markdown([f"{kernel}, d", *(f"{n} samples" for n in numbers)], rows))
    return "\n\n".join([*parts, each_peer(records), missing(records)])


def each_peer(records: list[Record]) -> str:
    """Return a line for each peer: how many times as long as the library it takes."""
    rows = []
    for name in PEERS:
        times = [1 / ratio(r) for r in records if r["peer"] == name and "seconds" in r]
        if times:
            spread = [f"{figure(times):.1f}" for figure in (min, median, max)]
            rows.append([name, str(len(times)), *spread])
    return markdown(["peer", "sizes and kernels", "least time / `mmd2`", "median", "most"], rows)


def missing(records: list[Record]) -> str:
    """Return a list of the omitted peers with the reasons."""
    total = len({(r["n"], r["d"], r["kernel"]) for r in records})
    reasons = Counter((r["peer"], r["why"]) for r in records if "why" in r)
    return "\n".join(f"- {name}, {n} of {total} sizes and kernels: {why}." for (name, why), n in reasons.items())


def targets(records: list[Record]) -> list[Target]:
    """Return the promise that no peer is faster, by kernel; only all sizes together can show that it is kept."""
    found = best(records)
    result = []
    for kernel in ("RBF", "5 RBF"):
        worst = max((r for (name, _, _), r in found.items() if name == kernel), key=ratio, default=None)
        if worst is None or (ratio(worst) <= 1 and not all((kernel, d, n) in found for n, d in SIZES)):
            result.append(Target(f"`mmd2` / best eager peer, {kernel}", 1.0, None))
        else:
            where = f"worst at ({worst['n']}, {worst['d']}), {worst['peer']}"
            result.append(Target(f"`mmd2` / best eager peer, {kernel}, {where}", 1.0, ratio(worst)))
    return result


def draw(records: list[Record], figure: Figure) -> None:
    """Draw the library's time in that of the best peer over the number of samples."""
    found = best(records)
    kernels = list(dict.fromkeys(kernel for kernel, _, _ in found))
    for axes, kernel in zip(figure.subplots(1, len(kernels), sharey=True, squeeze=False)[0], kernels, strict=True):
        for d in sorted({d for name, d, _ in found if name == kernel}):
            points = sorted((n, ratio(r)) for (name, width, n), r in found.items() if (name, width) == (kernel, d))
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=f"d = {d}")
        axes.axhline(1, color="grey", linewidth=0.8, linestyle=":")
        axes.set(xscale="log", xlabel="samples of each group", ylim=(0, None), title=kernel)
        numbers = sorted({n for _, _, n in found})
        axes.set_xticks(numbers, [str(n) for n in numbers])
        axes.minorticks_off()
        axes.legend(fontsize="small")
    figure.supylabel("time / time of the best peer")


if __name__ == "__main__":
    main(sys.modules[__name__])
