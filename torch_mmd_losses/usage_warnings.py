"""Warnings of legal uses that are almost surely mistakes."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from types import CodeType

import torch

_LIBRARIES = (f"{Path(__file__).parent}{os.sep}", f"{Path(torch.__file__).parent}{os.sep}")
_warned: set[tuple[object, ...]] = set()
"""Places in the code that have caused a warning, and places whose first call has been examined."""
_examined: list[CodeType] = []
"""The code of the latter. While it is kept, no other code, such as the next cell of a notebook, gets its address."""


class UsageWarning(UserWarning):
    """A legal use of `torch_mmd_losses` that is almost surely a mistake. The message says what to change.

    Each place in your code causes one warning. To turn the warnings off, or into errors, use
    `warnings.simplefilter("ignore", torch_mmd_losses.UsageWarning)` or `"error"`.
    """


def warn(kind: str, message: str) -> None:
    """Issue a :class:`UsageWarning` for the line of the user's code that called the library; once for each line.

    Nothing is issued under `torch.compile`.

    Args:
        kind: a word for the mistake, so that one line can cause warnings of several kinds.
        message: the mistake and its remedy.
    """
    if torch.compiler.is_compiling():
        return
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        level, frame = level + 1, frame.f_back
    place = (frame.f_code.co_filename, frame.f_lineno, kind)
    if place not in _warned:
        _warned.add(place)
        warnings.warn(message, UsageWarning, stacklevel=level)


def is_first_call_from_place() -> bool:
    """Return whether the calling function has been called from a place in the user's code for the first time.

    Functions of this library and of PyTorch in between do not count, such as the wrapper that `torch.no_grad()` puts
    around a function, and `torch.nn.Module.__call__`. Under `torch.compile`, the result is False.

    This costs a fraction of a microsecond: the place is found without the number of its line, which Python counts from
    the start of the function.
    """
    if torch.compiler.is_compiling():
        return False
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        frame = frame.f_back
    place = (id(frame.f_code), frame.f_lasti)
    if place in _warned:
        return False
    _warned.add(place)
    _examined.append(frame.f_code)
    return True
