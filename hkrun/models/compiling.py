"""How Numba compiles kernels for this machine's processor.

It takes seconds, once: the machine code is kept beside the kernels' file, or in the user's cache folder.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numpy.typing import NDArray

from hkrun.digests import short_digest

Floats = NDArray[Any]  # all of float32, or all of float64

_OPTIONS: dict[str, Any] = {
    "fastmath": {"arcp", "contract", "nsz", "reassoc"},  # but neither nnan nor ninf
    "error_model": "numpy",
}

_FOLDER = Path(__file__).parent
_SOURCES = (_FOLDER / "compiling.py", *sorted(_FOLDER.glob("*_kernels.py")))
_DIGEST = short_digest(b"\0".join(source.read_bytes() for source in _SOURCES))


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """A kernel, compiled for the types of its arguments when it is first called with them.

    Sums are taken in any order; NaN and infinity are what they are.
    """
    # What is kept of it is found by this name. Numba compiles a kernel anew where its own module has changed,
    # but not where another one has whose kernels are compiled into it.
    function.__qualname__ += f"_{_DIGEST}"
    try:
        kernel: Callable[..., None] = numba.njit(function, cache=True, **_OPTIONS)
    except RuntimeError:  # no folder can be written
        kernel = numba.njit(function, **_OPTIONS)
    return kernel


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """A part of kernels, compiled into each of them."""
    part: Callable[..., Any] = numba.njit(function, forceinline=True, **_OPTIONS)
    return part
