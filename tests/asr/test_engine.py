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
from asr.engine import DECODER_GRAPH, ENGINE_GRAPH, SHORTEST_SAMPLES, Engine
from asr.model import SpeechModel
from asr.tokenizer import Tokenizer
from asr.vocabulary import Vocabulary
from training.export import export

TOKENIZER = Tokenizer.characters()
ENCODERS = [{"type": "recurrent", "width": 6, "layers": 1, "stack": 4}]
DECODER = {"type": "transformer", "width": 32, "heads": 4, "layers": 2, "vocabulary": 258, "positions": 40}
SPEAKING = [
    {"type": "transformer", "width": 32, "layers": 1, "heads": 2, "final_norm": False},
    {"type": "transformer", "width": 32, "layers": 1, "heads": 2, "subsampling": 1, "stem": False},
]
VOCABULARY = Vocabulary(tuple(bytes([byte]) for byte in range(256)), ("<|startoftranscript|>",))
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


@pytest.fixture(scope="module", params=["ctc", "decoder alone"])
def speaking(request, tmp_path_factory) -> Bundle:
    """A model with a decoder, with and without CTC head."""
    keras.utils.set_random_seed(0)
    recurrent = {"type": "recurrent", "cell": "lstm", "width": 8, "layers": 1, "stack": 2}
    with_ctc = request.param == "ctc"
    model = SpeechModel(
        TOKENIZER.size if with_ctc else None,
        [*SPEAKING, recurrent] if with_ctc else SPEAKING,
        {"mels": 12},
        DECODER | {"encoders": 2},
    ).build_for()
    for variable in model.trainable_variables:  # norms and biases that are no ones and zeros
        variable.assign_add(0.1 * keras.random.normal(variable.shape))
    folder = save_bundle(tmp_path_factory.mktemp("models") / "speaking", model, TOKENIZER, VOCABULARY)
    export(Bundle.load(folder))
    return Bundle.load(folder)


def tokens(batch: int, count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, VOCABULARY.size, (batch, count)).astype("int32")


def no_past(batch: int) -> np.ndarray:
    return np.zeros((2 * DECODER["layers"], batch, 0, DECODER["width"]), "float32")


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
    (folder / ENGINE_GRAPH).unlink()
    found = Engine.load(Bundle.load(folder)).log_probs(SOUND)
    np.testing.assert_allclose(found, engines["keras"].log_probs(SOUND), atol=1e-6)


def test_a_graph_of_other_weights_is_refused(folder):
    weights = load_file(weights_path(folder))
    weights["output/bias"] = weights["output/bias"] + np.float16(1)
    save_file(weights, weights_path(folder))
    assert "was exported from other weights; run python -m training.export again" in refusal(folder)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "folder"])
def test_a_broken_graph_is_refused(folder, damage):
    path = folder / ENGINE_GRAPH
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
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), folder / ENGINE_GRAPH)
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


def test_decoder_by_graph_and_by_keras_agree(speaking):
    by_graph, by_keras = (Engine.load(speaking, backend=backend) for backend in ("onnx", "keras"))
    for samples in (16_000, 9_001, 0):
        ours, expected = by_graph.encode(SOUND[:samples]), by_keras.encode(SOUND[:samples])
        np.testing.assert_allclose(ours.memory, expected.memory, atol=1e-4)
        assert (ours.log_probs is None) == (expected.log_probs is None) == (not speaking.has_ctc)
        if speaking.has_ctc:
            np.testing.assert_allclose(ours.log_probs, expected.log_probs, atol=1e-4)
        for batch in (1, 3):  # hypotheses of one utterance
            first = [
                engine.step(tokens(batch, 4), no_past(batch), ours.memory) for engine in (by_graph, by_keras)
            ]
            more = [
                engine.step(tokens(batch, 2), past, ours.memory)
                for engine, (_, past) in zip((by_graph, by_keras), first, strict=True)
            ]
            for found, wanted in (first, more):
                for part, other in zip(found, wanted, strict=True):
                    assert part.shape == other.shape
                    assert part.dtype == other.dtype == np.float32
                    np.testing.assert_allclose(part, other, atol=1e-4)


@pytest.mark.parametrize("backend", ["onnx", "keras"])
def test_tokens_one_by_one_or_all_at_once(speaking, backend):
    engine = Engine.load(speaking, backend=backend)
    memory = engine.encode(SOUND).memory
    at_once, present = engine.step(tokens(2, 6), no_past(2), memory)
    past, one_by_one = no_past(2), []
    for i in range(6):
        logits, past = engine.step(tokens(2, 6)[:, i : i + 1], past, memory)
        one_by_one.append(logits)
    np.testing.assert_allclose(np.concatenate(one_by_one, axis=1), at_once, atol=1e-4)
    np.testing.assert_allclose(past, present, atol=1e-4)


def test_each_utterance_of_a_batch_has_its_memory(speaking):
    """Two utterances with two hypotheses each, at once and each alone."""
    for backend in ("onnx", "keras"):
        engine = Engine.load(speaking, backend=backend)
        memories = [engine.encode(sound).memory for sound in (SOUND, SOUND[::-1].copy())]
        together, _ = engine.step(tokens(4, 3), no_past(4), np.concatenate(memories, axis=1))
        for i, memory in enumerate(memories):
            pair = slice(2 * i, 2 * i + 2)
            alone, _ = engine.step(tokens(4, 3)[pair], no_past(2), memory)
            np.testing.assert_allclose(together[pair], alone, atol=1e-4)


@pytest.mark.parametrize("damage", ["none", "other weights", "another graph"])
def test_a_broken_decoder_is_refused(speaking, tmp_path, damage):
    folder = shutil.copytree(speaking.directory, tmp_path / "copy")
    path = folder / DECODER_GRAPH
    if damage == "none":
        path.unlink()
    elif damage == "another graph":
        shutil.copy(folder / ENGINE_GRAPH, path)
    else:
        graph = onnx.load(path, load_external_data=False)
        graph.metadata_props[0].value = "00000000"
        path.write_bytes(graph.SerializeToString())
    message = refusal(folder)
    assert str(path) in message
    assert "training.export again" in message
