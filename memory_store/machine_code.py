"""Python functions compiled to machine code (Numba: Lam, Pitrou and Seibert, "Numba", LLVM workshop, 2015).

What was compiled is kept beside the file it stands in, or in the user's cache folder, and made anew when that file changes:
not when another does that it calls (https://numba.readthedocs.io/en/stable/developer/caching.html). So what calls each other
stands in one file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

import numba
import numpy as np
import numpy.typing as npt

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Number = TypeVar("_Number", bound=np.generic)

_OPTIONS: Final[dict[str, Any]] = {"error_model": "numpy", "nogil": True}
_FUSED: Final = {"contract"}
_FREE: Final = {"contract", "reassoc", "nnan", "nsz"}


def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A function as machine code: products may be fused with sums, and nothing else is reordered."""
    return _compiled(function, _FUSED)


def compiled_freely(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A function as machine code that may add in any order, so that the last bits are of no account, and knows no nan."""
    return _compiled(function, _FREE)


def fixed(array: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """The same array, in a row and not to be written to: one kind for those in memory and those in files.

    An array of another kind would be compiled for anew.
    """
    view = np.ascontiguousarray(array).view(np.ndarray)
    view.flags.writeable = False
    return view


def _compiled(function: Callable[_P, _R], arithmetic: set[str]) -> Callable[_P, _R]:
    options = _OPTIONS | {"fastmath": arithmetic}
    try:
        result: Callable[_P, _R] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        result = numba.njit(**options)(function)
    return result
