"""How the inner loops of decoding become machine code."""

from collections.abc import Callable

import numba


def compiled(function: Callable) -> Callable:
    """`function` compiled by numba at its first call, and kept on disk for the next process.

    Numba keeps it beside the source or in the user's cache folder. Where neither can be written (a read-only
    image without a home), it refuses to decorate at all; then each process compiles for itself.
    """
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:
        return numba.njit(function)
