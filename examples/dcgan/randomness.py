"""The states of all generators of random numbers, so that a resumed run draws what the first one would have drawn."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

State = dict[str, Any]


def seed(number: int) -> None:
    """Start Python's, NumPy's and PyTorch's global generators from a number below 2^32."""
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def state() -> State:
    """Return the states of Python's, NumPy's and PyTorch's global generators, as tensors and numbers."""
    version, numbers, gauss = random.getstate()
    legacy: Any = np.random.get_state(legacy=False)
    return {
        "python": (version, torch.tensor(numbers), gauss),
        "numpy": legacy | {"state": {"key": torch.from_numpy(legacy["state"]["key"]), "pos": legacy["state"]["pos"]}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
    }


def restore(state: State) -> None:
    """Go back to states that :func:`state` returned; those of GPUs only where there are as many."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    key = state["numpy"]["state"]["key"].numpy()
    np.random.set_state(state["numpy"] | {"state": state["numpy"]["state"] | {"key": key}})
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
