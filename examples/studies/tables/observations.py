"""What the paper observes in Figure 3, beside the numbers of the one seed that these runs have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sweeps.summary import NONE, markdown

from studies import cells, protocol
from studies.repulsion import Group, groups


def table(raw: Path) -> str:
    """Return the table."""
    found = groups(raw)
    of_kernels = [[group for group in found if group.kernel == kernel] for kernel in protocol.KERNELS]
    rows = ([what, *map(say, of_kernels)] for what, say in OBSERVATIONS.items())
    return markdown(["observation", *protocol.KERNELS], rows)


def _lowest(of_kernel: Sequence[Group]) -> str:
    return "; ".join(f"{cells.fid(group.lowest)} at {group.lambda_}" for group in of_kernel)


def _attractive(of_kernel: Sequence[Group]) -> str:
    return _lowest([group for group in of_kernel if float(group.lambda_) < 0])


def _failed(of_kernel: Sequence[Group]) -> str:
    return "; ".join(f"{group.failed if group.found else NONE} at {group.lambda_}" for group in of_kernel)


def _failed_in_all(of_kernel: Sequence[Group]) -> str:
    known = sum(len(group.found) for group in of_kernel)
    return cells.share(sum(group.failed for group in of_kernel), known, len(of_kernel) * len(protocol.PAIRS))


OBSERVATIONS: Mapping[str, Callable[[Sequence[Group]], str]] = {
    "1) it does well with lambda >= 0, slightly better with 0.5 and 1: lowest FID": _lowest,
    "2) -0.5 is much better than -1 with RBF: lowest FID": _attractive,
    "3) more runs diverge with a larger lambda: pairs that failed": _failed,
    "4) RBF-B makes most of the diverged runs stable: pairs that failed": _failed_in_all,
}
"""Each with what is said of one kernel."""
