"""Compilation of the inner loops of decoding."""

from collections.abc import Callable

import numba


def compiled(function: Callable) -> Callable:
    """`function`, compiled by numba at its first call and cached on disk.

    The cache is next to the source or in the user's cache folder. If neither is writable, numba raises
    RuntimeError; each process then compiles again.
    """
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:
        return numba.njit(function)
