"""What the paper observes in Figure 3, beside the numbers of the one seed that these runs have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sweeps.summary import NONE, markdown

from studies import cells, protocol
from studies.repulsion import Repulsion, repulsions


def table(raw: Path) -> str:
    """Return the table."""
    found = repulsions(raw)
    of_kernels = [[each for each in found if each.kernel == kernel] for kernel in protocol.KERNELS]
    rows = ([what, *map(say, of_kernels)] for what, say in OBSERVATIONS.items())
    return markdown(["observation", *protocol.KERNELS], rows)


def _lowest(of_kernel: Sequence[Repulsion]) -> str:
    return "; ".join(f"{cells.fid(each.lowest)} at {each.lambda_}" for each in of_kernel)


def _attractive(of_kernel: Sequence[Repulsion]) -> str:
    return _lowest([each for each in of_kernel if float(each.lambda_) < 0])


def _failed(of_kernel: Sequence[Repulsion]) -> str:
    return "; ".join(f"{each.failed if each.found else NONE} at {each.lambda_}" for each in of_kernel)


def _failed_in_all(of_kernel: Sequence[Repulsion]) -> str:
    known = sum(len(each.found) for each in of_kernel)
    return cells.share(sum(each.failed for each in of_kernel), known, len(of_kernel) * len(protocol.PAIRS))


OBSERVATIONS: Mapping[str, Callable[[Sequence[Repulsion]], str]] = {
    "1) it does well with lambda >= 0, slightly better with 0.5 and 1 than with -0.5, 0 and 2: lowest FID": _lowest,
    "2) -0.5 is much better than -1 with RBF: lowest FID": _attractive,
    "3) more runs diverge with a larger lambda: pairs that failed": _failed,
    "4) RBF-B makes most of the diverged runs stable: pairs that failed": _failed_in_all,
}
"""Each with what is said of one kernel."""
