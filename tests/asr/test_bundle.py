"""asr/bundle.py: what is saved is what is loaded; broken folders are refused in one line."""

import errno
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from asr.bundle import (
    FORMAT_VERSION,
    Bundle,
    BundleError,
    available_bundles,
    read_weights,
    save_bundle,
    store_in_8_bits,
    weights_path,
)
from asr.model import SpeechModel
from asr.tokenizer import Tokenizer

UNITS = Tokenizer.characters()
ENCODERS = [{"type": "recurrent", "width": 4, "layers": 1, "stack": 4}]


@pytest.fixture
def model() -> SpeechModel:
    keras.utils.set_random_seed(0)
    model = SpeechModel(UNITS.size, ENCODERS, features={"mels": 8}).build_for()
    for variable in model.trainable_variables:  # as float16 holds them
        variable.assign(variable.numpy().astype("float16").astype("float32"))
    return model


@pytest.fixture
def folder(tmp_path, model):
    return save_bundle(tmp_path / "tiny", model, UNITS)


def logits(model):
    samples = 0.1 * np.random.default_rng(0).standard_normal((1, 4000)).astype("float32")
    return model({"inputs": samples, "lengths": np.int32([4000])})["logits"]


def refusal(function) -> str:
    """The message of the BundleError that a call raises; it is one line."""
    with pytest.raises(BundleError) as error:
        function()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_saved_is_what_is_loaded(folder, model):
    bundle = Bundle.load(folder)
    assert bundle.name == "tiny"
    assert bundle.tokenizer == UNITS
    assert bundle.step_seconds == pytest.approx(0.04)
    assert not bundle.has_language_model
    np.testing.assert_array_equal(logits(bundle.build_model()), logits(model))


def test_weights_are_float16(folder):
    assert {value.dtype for value in load_file(weights_path(folder)).values()} == {np.dtype("float16")}


def test_in_8_bits_each_weight_is_within_half_a_step(folder, model):
    path = weights_path(folder)
    kernel = model.encoders[0].weights[0]
    scaled = kernel.numpy()
    scaled[:, 1] = 0
    scaled[:, 2] *= 1e-4
    scaled[:, 3] *= 1e4
    kernel.assign(scaled)
    save_bundle(folder, model, UNITS)
    before = read_weights(path)
    store_in_8_bits(Bundle.load(folder))
    after, stored = read_weights(path), load_file(path)
    assert any(value.dtype == np.int8 for value in stored.values())
    for name, value in before.items():
        # The scale itself is rounded to float16, by half of 1 / 2048, or of its smallest number.
        largest = np.abs(value).max(axis=0, keepdims=True)
        bound = largest * (0.5 / 127 + 1 / 2048) + 127 * 2.0**-25 if stored[name].dtype == np.int8 else 0
        assert np.all(np.abs(after[name] - value) <= bound), name
    store_in_8_bits(Bundle.load(folder))
    assert {name: value.tobytes() for name, value in load_file(path).items()} == {
        name: value.tobytes() for name, value in stored.items()
    }


@pytest.mark.parametrize("version", [1, 2])
def test_older_formats_are_read(folder, model, version):
    change(folder, format_version=version, language="en")
    (folder / "units.txt").write_text("\n".join(["<blank>", *UNITS.symbols[1:]]) + "\n")
    np.testing.assert_array_equal(logits(Bundle.load(folder).build_model()), logits(model))


def test_loading_a_description_imports_no_tensorflow(folder):
    code = (
        "import sys; from asr.bundle import Bundle; Bundle.load(sys.argv[1]); print('keras' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_shipped_bundles_have_names():
    assert all((bundle.directory / "model.json").exists() for bundle in available_bundles())


def test_unknown_name():
    assert refusal(lambda: Bundle.load("klingon")).startswith("klingon: no such model; give a folder")


@pytest.mark.parametrize("name", ["model.json", "tokenizer.json"])
def test_missing_file(folder, name):
    (folder / name).unlink()
    assert f"{name}: No such file" in refusal(lambda: Bundle.load(folder))


def test_missing_weights(folder):
    weights_path(folder).unlink()
    assert "weights.safetensors" in refusal(Bundle.load(folder).build_model)


def test_truncated_weights(folder):
    path = weights_path(folder)
    path.write_bytes(path.read_bytes()[:-10])
    assert "weights.safetensors" in refusal(Bundle.load(folder).build_model)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", "\x00"])
def test_broken_description(folder, content):
    (folder / "model.json").write_text(content)
    assert "model.json" in refusal(lambda: Bundle.load(folder))


def change(folder, **changes):
    path = folder / "model.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, "1", ...])
def test_unknown_version(folder, version):
    change(folder, format_version=version)
    assert "update Hark or export again" in refusal(lambda: Bundle.load(folder))


@pytest.mark.parametrize("key", ["features", "encoders", "step_seconds"])
def test_missing_key(folder, key):
    change(folder, **{key: ...})
    assert f"lacks {key}" in refusal(lambda: Bundle.load(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoders": [{"type": "oracle"}]}, "encoder type 'oracle' is unknown"),
        ({"encoders": [{"type": "recurrent", "depth": 2}]}, "depth"),
        ({"encoders": "recurrent"}, "model.json"),
        ({"features": {"bands": 8}}, "bands"),
    ],
)
def test_descriptions_that_name_no_model(folder, changes, message):
    change(folder, **changes)
    assert message in refusal(Bundle.load(folder).build_model)


@pytest.mark.parametrize("name", ["model.json", "tokenizer.json", "weights.safetensors"])
def test_a_file_that_cannot_be_written_leaves_the_old_one(folder, model, name, monkeypatch):
    before = (folder / name).read_bytes()
    replace = os.replace

    def failing(source, target):
        if target.name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    model.output_layer.bias.assign(np.ones(UNITS.size, "float32"))
    model.feature_options["scale"] = "natural"
    with pytest.raises(OSError, match="No space left"):
        save_bundle(folder, model, Tokenizer.characters("de"))
    assert (folder / name).read_bytes() == before
    assert len(list(folder.iterdir())) == 3


def test_units_without_a_blank(folder):
    content = {"language": "en", "alphabet": "b", "symbols": ["a", "b"], "bpe": None}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert "tokenizer.json: unit 0 must be the CTC blank" in refusal(lambda: Bundle.load(folder))


def test_wrong_shape(folder):
    change(folder, encoders=[{**ENCODERS[0], "width": 5}])
    message = refusal(Bundle.load(folder).build_model)
    assert "of shape (32, 16), not (32, 20); export the model again" in message


def test_other_number_of_units(folder):
    Tokenizer("en", "a", ("", "a")).save(folder / "tokenizer.json")
    assert "output/kernel is of shape (8, 29), not (8, 2)" in refusal(Bundle.load(folder).build_model)


def rewrite_weights(folder, edit):
    weights = load_file(weights_path(folder))
    edit(weights)
    save_file(weights, weights_path(folder))


def test_missing_variable(folder):
    rewrite_weights(folder, lambda weights: weights.pop("output/bias"))
    assert "output/bias is missing" in refusal(Bundle.load(folder).build_model)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(folder, value):
    rewrite_weights(folder, lambda weights: weights["output/bias"].__setitem__(3, value))
    assert "output/bias is not finite" in refusal(Bundle.load(folder).build_model)


def test_weights_too_large_for_float16_are_not_saved(tmp_path, model):
    model.output_layer.bias.assign(np.full(UNITS.size, 1e6, "float32"))
    assert "output/bias" in refusal(lambda: save_bundle(tmp_path / "large", model, UNITS))
    assert not (tmp_path / "large").exists()
