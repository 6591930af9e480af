"""`hark benchmark server`: what it counts as an error, and what not."""

import os
import re
from pathlib import Path

import pytest

from asr.serve import line
from tests.asr.conftest import speak  # noqa: F401 (a fixture)
from tests.serve.serving import served
from tests.serve.test_openai import flac
from training.benchmarks.server import _measure


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc of Linux")
@pytest.mark.parametrize(("sound", "code"), [(True, 0), (False, 1)])
def test_who_is_sent_away_comes_again(recognizer, speak, tmp_path, monkeypatch, capsys, sound, code):  # noqa: F811
    monkeypatch.setattr(line, "MAX_WAITING", 0)
    monkeypatch.setattr(line, "RETRY_SECONDS", 1)
    path = tmp_path / "a.flac"
    path.write_bytes(flac(speak("hold on")) if sound else b"no sound")
    with served({"tones": recognizer}, at_once=1) as url:
        assert _measure(os.getpid(), int(url.rpartition(":")[2]), [path], 4, 2.0) == code
    output = capsys.readouterr().out
    answers, errors = map(int, re.search(r"(\d+) answers, (\d+) errors", output).groups())
    assert answers > 4 and errors == (0 if sound else answers)
    assert int(re.search(r"(\d+) times sent away", output)[1]) > 0
    assert ("{'400': " in output) is not sound
