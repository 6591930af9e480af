"""Compilation of the inner loops of decoding."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numba
from numba.core.event import Event, Listener, install_listener


def compiled(function: Callable) -> Callable:
    """`function`, compiled by numba at its first call and cached on disk.

    The cache is next to the source or in the user's cache folder. If neither is writable, numba raises
    RuntimeError; each process then compiles again.
    """
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:
        return numba.njit(function)


@contextmanager
def on_compilation(tell: Callable[[], None]) -> Iterator[None]:
    """Within the block, `tell` is called before a function is compiled; not for one from the cache."""

    class Start(Listener):
        def on_start(self, event: Event) -> None:
            tell()

        def on_end(self, event: Event) -> None:
            pass

    with install_listener("numba:compile", Start()):
        yield
