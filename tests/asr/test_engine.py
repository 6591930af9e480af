"""asr/engine.py: the graph and Keras agree; what cannot be run is refused in one line."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from asr.bundle import Bundle, BundleError, save_bundle, weights_path
from asr.engine import GRAPH, SHORTEST_SAMPLES, Engine
from asr.model import SpeechModel
from asr.tokenizer import Tokenizer
from training.export import export

TOKENIZER = Tokenizer.characters()
ENCODERS = [{"type": "recurrent", "width": 6, "layers": 1, "stack": 4}]
SOUND = (0.1 * np.random.default_rng(0).standard_normal(16_000)).astype("float32")


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Bundle:
    keras.utils.set_random_seed(0)
    model = SpeechModel(TOKENIZER.size, ENCODERS, {"mels": 12}).build_for()
    bundle = Bundle.load(save_bundle(tmp_path_factory.mktemp("models") / "tiny", model, TOKENIZER))
    export(bundle)
    return bundle


@pytest.fixture(scope="module")
def engines(exported) -> dict[str, Engine]:
    return {backend: Engine.load(exported, backend=backend) for backend in ("onnx", "keras")}


@pytest.fixture
def folder(exported, tmp_path) -> Path:
    """A copy of the bundle, to be damaged."""
    return shutil.copytree(exported.directory, tmp_path / "copy")


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as error:
        Engine.load(Bundle.load(folder))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("samples", [16_000, 9_001, 401])
def test_graph_and_keras_agree(engines, samples):
    by_graph, by_keras = (engines[name].log_probs(SOUND[:samples]) for name in ("onnx", "keras"))
    assert by_graph.shape == by_keras.shape == (-(-(samples // 160) // 4), TOKENIZER.size)
    assert by_graph.dtype == by_keras.dtype == np.float32
    np.testing.assert_allclose(by_graph, by_keras, atol=1e-4)
    np.testing.assert_allclose(np.exp(by_graph).sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("backend", ["onnx", "keras"])
@pytest.mark.parametrize("samples", [0, 1, 399])
def test_sound_shorter_than_a_window_is_padded_with_silence(engines, backend, samples):
    found = engines[backend].log_probs(SOUND[:samples])
    padded = np.pad(SOUND[:samples], (0, SHORTEST_SAMPLES - samples))
    assert found.shape == (1, TOKENIZER.size)
    np.testing.assert_allclose(found, engines[backend].log_probs(padded), atol=1e-6)


def test_any_float_type_is_taken(engines):
    for engine in engines.values():
        np.testing.assert_array_equal(engine.log_probs(SOUND.astype("float64")), engine.log_probs(SOUND))


def test_without_a_graph_keras_runs(folder, engines):
    found = Engine.load(Bundle.load(folder)).log_probs(SOUND)
    np.testing.assert_array_equal(found, engines["onnx"].log_probs(SOUND))
    (folder / GRAPH).unlink()
    found = Engine.load(Bundle.load(folder)).log_probs(SOUND)
    np.testing.assert_allclose(found, engines["keras"].log_probs(SOUND), atol=1e-6)


def test_a_graph_of_other_weights_is_refused(folder):
    weights = load_file(weights_path(folder))
    weights["output/bias"] = weights["output/bias"] + np.float16(1)
    save_file(weights, weights_path(folder))
    assert "was exported from other weights; run python -m training.export again" in refusal(folder)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "folder"])
def test_a_broken_graph_is_refused(folder, damage):
    path = folder / GRAPH
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"hello"}[damage])
    message = refusal(folder)
    assert str(path) in message
    assert "training.export again" in message


def test_a_graph_of_something_else_is_refused(folder):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "identity", [value], [other])
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), folder / GRAPH)
    assert "run python -m training.export again" in refusal(folder)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux, to count threads")
def test_as_many_threads_as_asked_for(exported):
    def started(threads: int) -> int:
        before = len(os.listdir("/proc/self/task"))
        engine = Engine.load(exported, threads=threads, backend="onnx")
        engine.log_probs(SOUND)
        return len(os.listdir("/proc/self/task")) - before

    assert [started(threads) for threads in (1, 3)] == [0, 2]  # beside the thread that asks


def test_threads_may_share_an_engine(exported):
    engine = Engine.load(exported, threads=1, backend="onnx")
    sounds = [SOUND[: 1_000 * (i + 1)] for i in range(16)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(engine.log_probs, sounds))
    for sound, found in zip(sounds, together, strict=True):
        np.testing.assert_array_equal(found, engine.log_probs(sound))
