"""training/average.py: the mixture lies where it was asked for, and only models of one kind are mixed."""

import json

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

from asr.bundle import Bundle, save_bundle, weights_path
from asr.model import SpeechModel
from asr.tokenizer import Tokenizer
from tests.training.toy import VOCABULARY
from training.commands import main

UNITS = Tokenizer.characters()


def model(folder, seed, **options):
    keras.utils.set_random_seed(seed)
    encoders = [{"type": "recurrent", "width": 4, "layers": 1, "stack": 4} | options]
    return save_bundle(folder, SpeechModel(UNITS.size, encoders, features={"mels": 8}).build_for(), UNITS)


def test_a_joint_model_keeps_its_decoder_and_vocabulary(tmp_path):
    decoder = {"type": "transformer", "vocabulary": VOCABULARY.size, "width": 4, "heads": 1, "layers": 1}
    encoders = [{"type": "recurrent", "width": 4, "layers": 1, "bidirectional": False}]
    for name in ("a", "b"):
        network = SpeechModel(UNITS.size, encoders, {"mels": 8}, decoder).build_for()
        save_bundle(tmp_path / name, network, UNITS, VOCABULARY)
    arguments = ["average", str(tmp_path / "a"), str(tmp_path / "b"), "--share", "0.5"]
    assert main([*arguments, "--output", str(tmp_path / "mixed")]) == 0
    bundle = Bundle.load(tmp_path / "mixed")
    assert bundle.vocabulary == VOCABULARY
    assert bundle.build_model().decoder.vocabulary == VOCABULARY.size


def test_a_part_of_the_model_and_shares_of_its_own(tmp_path):
    decoder = {"type": "transformer", "vocabulary": VOCABULARY.size, "width": 4, "heads": 1, "layers": 1}
    encoders = [{"type": "recurrent", "width": 4, "layers": 1, "bidirectional": False}] * 2
    for name, units, count in (("joint", UNITS.size, 2), ("whisper", None, 1)):
        network = SpeechModel(
            units, encoders[:count], {"mels": 8}, decoder | ({"encoders": 1} if units else {})
        )
        save_bundle(tmp_path / name, network.build_for(), UNITS, VOCABULARY)
    folders = [str(tmp_path / name) for name in ("joint", "whisper")]
    shares = ["--share", "0.25", "decoder=0.5", "decoder/norm=1"]
    assert main(["average", *folders, *shares, "--output", str(tmp_path / "mixed")]) == 0
    a, b, mixed = (load_file(weights_path(tmp_path / name)) for name in ("joint", "whisper", "mixed"))
    for name, value in mixed.items():
        share = 1 if "decoder/norm" in name else 0.5 if "decoder" in name else 0.25 if name in b else 0
        np.testing.assert_allclose(value, (1 - share) * a[name] + share * b.get(name, 0), atol=2e-3)
    assert {"output/kernel", "encoder_1/forward_0/lstm_cell/kernel"} & mixed.keys()
    assert main(["average", *reversed(folders), "--output", str(tmp_path / "other")]) == 2


@pytest.mark.parametrize("share", ["1.5", "decoder=much", "nan"])
def test_impossible_shares_are_refused(tmp_path, capsys, share):
    with pytest.raises(SystemExit):
        main(["average", "a", "b", "--share", share, "--output", str(tmp_path / "mixed")])
    assert "is no share from 0 to 1" in capsys.readouterr().err


def test_weights_lie_between(tmp_path):
    first, second = model(tmp_path / "first", 0), model(tmp_path / "second", 1)
    config = json.loads((second / "model.json").read_text())
    (second / "model.json").write_text(json.dumps(config | {"wer": {"dev": 5.0}, "confidence": {}}))
    output = tmp_path / "mixed"
    assert main(["average", str(first), str(second), "--share", "0.25", "--output", str(output)]) == 0
    a, b, mixed = (load_file(weights_path(folder)) for folder in (first, second, output))
    for name in a:
        np.testing.assert_allclose(mixed[name], 0.75 * a[name] + 0.25 * b[name], atol=2e-3)
    assert Bundle.load(output).build_model().count_params() > 0
    assert Bundle.load(output).config == config  # with no figures of another model


def test_dropout_and_defaults_that_are_written_out_make_no_difference(tmp_path):
    folders = [model(tmp_path / "first", 0), model(tmp_path / "second", 1, dropout=0.2, bidirectional=True)]
    assert main(["average", *map(str, folders), "--output", str(tmp_path / "mixed")]) == 0


@pytest.mark.parametrize("other", [{"width": 6}, {"stack": 2}, {"cell": "gru"}])
def test_models_of_another_kind_are_refused(tmp_path, capsys, other):
    folders = [model(tmp_path / "first", 0), model(tmp_path / "second", 1, **other)]
    assert main(["average", *map(str, folders), "--output", str(tmp_path / "mixed")]) == 2
    assert "no models of one kind" in capsys.readouterr().err
    assert not (tmp_path / "mixed").exists()
