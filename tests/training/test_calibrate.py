import json

import numpy as np
import pytest

from asr.decoding.greedy import confidence_logit
from training.calibrate import fit, main, report

RAW = np.random.default_rng(0).random(40_000)


def right(scale, offset):
    """Whether words are right whose raw confidence deserves this scale and offset."""
    share = 1 / (1 + np.exp(-scale * confidence_logit(RAW) - offset))
    return np.random.default_rng(1).random(len(RAW)) < share


@pytest.mark.parametrize("scale, offset", [(1.0, 0.0), (0.4, 0.9), (1.5, -1.0)])
def test_finds_the_scale_and_offset_that_the_words_deserve(scale, offset):
    fitted = fit(RAW, right(scale, offset))
    assert fitted == {"scale": pytest.approx(scale, abs=0.05), "offset": pytest.approx(offset, abs=0.05)}


def test_report_tells_what_was_gained():
    is_right = right(0.4, 0.9)
    before, after = report(RAW, is_right, fit(RAW, is_right)).rsplit(" ", 3)[1::2]
    assert float(before) > 0.1 > 0.02 > float(after)


def test_a_missing_model_is_one_line(tmp_path, capsys):
    manifest = tmp_path / "dev.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": "a.wav", "text": "a", "duration": 1}) + "\n")
    assert main([str(manifest), "--model", str(tmp_path / "none")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
