"""asr/decoding/compilation.py: who waits for a compilation is told, and only then."""

import numba

from asr.decoding.compilation import on_compilation


def test_a_compilation_is_announced_once():
    told = []
    double = numba.njit(lambda number: 2 * number)
    with on_compilation(lambda: told.append("compiling")):
        assert double(2) == 4
        first = len(told)
        assert double(3) == 6
    double(0.5)  # is compiled again, for another type, but nobody listens
    assert first >= 1 and len(told) == first
