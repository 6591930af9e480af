import json

import numpy as np
import pytest
import soundfile

from asr.bundle import Bundle
from asr.decoding.greedy import greedy_decode
from asr.decoding.words import UNCALIBRATED, confidences
from asr.engine import Engine
from training.calibrate import fit, judged_words, report
from training.commands import main
from training.manifest import Entry

RANDOM = np.random.default_rng(0)
EVIDENCE = np.column_stack(
    [RANDOM.normal(1, 2, 40_000), RANDOM.exponential(0.5, 40_000), RANDOM.normal(2, 2, 40_000)]
)


def right(weights):
    """Whether words are right whose evidence deserves these weights."""
    return np.random.default_rng(1).random(len(EVIDENCE)) < confidences(EVIDENCE, weights)


@pytest.mark.parametrize("values", [(1, 0, 0, 0), (0.4, -2, 0.3, 0.9), (1.5, 0.5, 0, -1), (0, 0, 1, 0)])
def test_finds_the_weights_that_the_words_deserve(values):
    weights = dict(zip(UNCALIBRATED, values, strict=True))
    assert fit(EVIDENCE, right(weights)) == pytest.approx(weights, abs=0.1)


def test_a_greedy_decoder_has_no_shortfall_to_weigh():
    evidence = EVIDENCE * [1, 0, 0]
    fitted = fit(evidence, right(UNCALIBRATED))
    assert fitted["shortfall"] == fitted["token"] == 0


def test_report_tells_what_was_gained():
    is_right = right({"certainty": 0.4, "shortfall": -2.0, "offset": 0.9})
    before, after = report(EVIDENCE, is_right, fit(EVIDENCE, is_right)).rsplit(" ", 3)[1::2]
    assert float(before) > 0.05 > 0.02 > float(after)


def test_broken_recordings_are_left_out_and_counted(tmp_path, caplog):
    soundfile.write(tmp_path / "a.wav", 0.1 * RANDOM.normal(size=16_000), 16_000)
    (tmp_path / "broken.wav").write_bytes(b"RIFFxxxxWAVE")
    good, *others = (
        Entry(name, tmp_path / f"{name}.wav", "hold on", 1.0) for name in ("a", "broken", "none")
    )
    bundle = Bundle.load("english")
    engine, tokenizer = Engine.load(bundle), bundle.tokenizer
    decoders = {"greedy": lambda encoding: greedy_decode(encoding.log_probs, tokenizer)}
    assert judged_words(engine, tokenizer, [others[0], good, others[1]], decoders)[1] == 2
    assert "broken.wav" in caplog.text
    assert "none.wav" in caplog.text
    with pytest.raises(ValueError, match="no utterance is left"):
        judged_words(engine, tokenizer, others, decoders)


def test_a_missing_model_is_one_line(tmp_path, capsys):
    manifest = tmp_path / "dev.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": "a.wav", "text": "a", "duration": 1}) + "\n")
    assert main(["calibrate", str(manifest), "--model", str(tmp_path / "none")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
