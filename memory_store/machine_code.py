"""Python functions compiled to machine code (Numba: Lam, Pitrou and Seibert, "Numba", LLVM workshop, 2015).

What was compiled is kept beside the file it stands in, or in the user's cache folder, and made anew when that file changes:
not when another does that it calls (https://numba.readthedocs.io/en/stable/developer/caching.html). So what calls each other
stands in one file. Nor is it made anew when the options below change: whoever changes them has to empty these folders.

Numba is loaded when the first of them is called: it takes as long as all else that a short command needs of a memory.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import cache, update_wrapper
from typing import Any, Final, Generic, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Number = TypeVar("_Number", bound=np.generic)

_OPTIONS: Final[dict[str, Any]] = {"error_model": "numpy", "nogil": True}
_FUSED: Final = frozenset({"contract"})
_FREE: Final = frozenset({"contract", "reassoc", "nnan", "nsz"})
_loading: Final = threading.RLock()
_tell: Callable[[], object] | None = None


class _Compiled(Generic[_P, _R]):
    """A function that is machine code from its first call on.

    Args:
        function: to be compiled; what it calls of its own file is compiled with it.
        arithmetic: what of the rules of floating point may be broken.
    """

    _of_files: Final[dict[str, list[_Compiled[Any, Any]]]] = {}

    def __init__(self, function: Callable[_P, _R], arithmetic: frozenset[str]) -> None:
        update_wrapper(self, function)
        self.__wrapped__ = function
        self._arithmetic = arithmetic
        self._machine_code: Callable[_P, _R] | None = None
        self._of_files.setdefault(function.__module__, []).append(self)

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return (self._machine_code or self._loaded())(*args, **kwargs)

    def _loaded(self) -> Callable[_P, _R]:
        with _loading:
            if self._machine_code is None:
                _listen()
                module = self.__wrapped__.__module__
                made = [(each, _dispatcher(each.__wrapped__, each._arithmetic)) for each in self._of_files[module]]
                # Compiled code finds what it calls among the names of its file. They are all there before another thread can
                # call one, as what once failed to compile fails for ever.
                for each, machine_code in made:
                    setattr(sys.modules[module], each.__wrapped__.__name__, machine_code)
                for each, machine_code in made:
                    each._machine_code = machine_code
            assert self._machine_code is not None
            return self._machine_code


def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A function as machine code: products may be fused with sums, and nothing else is reordered."""
    return _Compiled(function, _FUSED)


def compiled_freely(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A function as machine code that may add in any order, so that the last bits are of no account, and knows no nan."""
    return _Compiled(function, _FREE)


def tell_of_compiling(tell: Callable[[], object]) -> None:
    """Have something called when this process compiles for the first time; it takes seconds, and is kept for later ones."""
    global _tell
    _tell = tell


@cache
def _listen() -> None:
    """Notice when a function is compiled because it is not found in the cache."""
    from numba.core import event

    class Listener(event.Listener):
        def on_start(self, event: object) -> None:
            global _tell
            tell, _tell = _tell, None
            if tell is not None:
                tell()

        def on_end(self, event: object) -> None:
            """Nothing to tell."""

    event.register("numba:compile", Listener())  # type: ignore[no-untyped-call]


def fixed(array: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """The same array, in a row and not to be written to: one kind for those in memory and those in files.

    An array of another kind would be compiled for anew.
    """
    view = np.ascontiguousarray(array).view(np.ndarray)
    view.flags.writeable = False
    return view


def _dispatcher(function: Callable[_P, _R], arithmetic: frozenset[str]) -> Callable[_P, _R]:
    import numba

    options = _OPTIONS | {"fastmath": set(arithmetic)}
    try:
        result: Callable[_P, _R] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        result = numba.njit(**options)(function)
    return result
