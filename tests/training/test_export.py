"""training/export.py: the graph computes what Keras computes, from the bundle's own weights."""

import shutil

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file

from asr.bundle import (
    SCALE,
    Bundle,
    BundleError,
    save_bundle,
    variable_name,
    weights_path,
)
from asr.engine import DECODER_GRAPH, ENGINE_GRAPH, Engine
from asr.model import SpeechModel
from asr.tokenizer import Tokenizer
from asr.vocabulary import Vocabulary
from training import export as exporting
from training.graph_writer import GraphWriter

UNITS = Tokenizer.characters()
BOUND_8_BITS = 0.05  # mean difference, of the standard deviation
WHISPER_LIKE = [
    {"type": "transformer", "width": 32, "layers": 1, "heads": 2, "final_norm": False},
    {"type": "transformer", "width": 32, "layers": 1, "heads": 2, "subsampling": 1, "stem": False},
    {"type": "recurrent", "cell": "lstm", "width": 24, "layers": 2, "stack": 2},
]
MODELS = {
    "whisper and lstm": ("whisper", WHISPER_LIKE),
    "one-way lstm": (
        "natural",
        [{"type": "recurrent", "cell": "lstm", "width": 24, "layers": 1, "bidirectional": False}],
    ),
    "gru": ("standardized", [{"type": "recurrent", "cell": "gru", "width": 24, "layers": 1, "stack": 4}]),
    "simple": (
        "whisper",
        [
            {
                "type": "recurrent",
                "cell": "simple",
                "width": 24,
                "layers": 2,
                "bidirectional": False,
                "stack": 8,
            }
        ],
    ),
    "conformer": (
        "whisper",
        [{"type": "conformer", "width": 32, "layers": 1, "heads": 2, "kernel": 5, "subsampling": 4}],
    ),
}


def bundle(folder, encoders, scale="whisper") -> Bundle:
    keras.utils.set_random_seed(0)
    model = SpeechModel(UNITS.size, encoders, features={"mels": 40, "scale": scale}).build_for()
    for variable in model.trainable_variables:  # norms and biases that are no ones and zeros
        variable.assign_add(0.1 * keras.random.normal(variable.shape))
    return Bundle.load(save_bundle(folder, model, UNITS))


def sounds() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [(0.1 * random.standard_normal(length)).astype("float32") for length in (16_000, 9_000, 3_210)]


@pytest.mark.parametrize(("scale", "encoders"), MODELS.values(), ids=MODELS)
def test_same_log_probs_as_keras(tmp_path, scale, encoders):
    trained = bundle(tmp_path / "model", encoders, scale)
    [path] = exporting.export(trained)
    by_graph, by_keras = (Engine.load(trained, backend=backend) for backend in ("onnx", "keras"))
    for samples in sounds():
        ours, expected = by_graph.log_probs(samples), by_keras.log_probs(samples)
        assert ours.shape == expected.shape
        np.testing.assert_allclose(ours, expected, atol=1e-4)
    # Every weight is read from the file, and none is in the graph a second time.
    graph = onnx.load(path, load_external_data=False).graph
    external = {t.name: t for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    variables = {variable_name(v): v for v in trained.build_model().weights if "seed" not in v.path}
    assert set(external) == set(variables)
    sizes = {np.prod(v.shape) for v in variables.values() if np.prod(v.shape) >= 1024}
    assert not [t.name for t in graph.initializer if t.name not in external and np.prod(t.dims) in sizes]


@pytest.mark.parametrize(("scale", "encoders"), MODELS.values(), ids=MODELS)
def test_every_encoder_computes_in_8_bits(tmp_path, scale, encoders):
    trained = bundle(tmp_path / "model", encoders, scale)
    exporting.export(trained, int8=True)
    by_graph, by_keras = (Engine.load(trained, backend=backend) for backend in ("onnx", "keras"))
    for samples in sounds():
        ours, expected = by_graph.log_probs(samples), by_keras.log_probs(samples)
        assert 0 < np.abs(ours - expected).mean() < BOUND_8_BITS * expected.std()


def test_in_8_bits_a_step_of_wide_range_changes_no_other():
    random = np.random.default_rng(0)
    x, codes = random.standard_normal((1, 9, 64)).astype("float32"), random.integers(-127, 128, (64, 16))
    tensors = {
        "layer/kernel": onnx.numpy_helper.from_array(codes.astype("int8"), "layer/kernel"),
        "layer/kernel/scale": onnx.numpy_helper.from_array(np.ones((1, 16), "float16"), "layer/kernel/scale"),
    }
    writer = GraphWriter(tensors, int8=True)
    writer.name(writer.dense(writer.quantised("x"), "layer"), "y")
    graph = writer.model("layer", {"x": (1, "steps", 64)}, {"y": (1, "steps", 16)})
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    [before] = session.run(None, {"x": x})
    x[0, 4] *= 1000
    [after] = session.run(None, {"x": x})
    np.testing.assert_allclose(np.delete(after, 4, 1), np.delete(before, 4, 1), rtol=1e-5, atol=1e-3)
    assert np.all(np.abs(after - x @ codes) < 0.02 * np.abs(x @ codes).max(axis=-1, keepdims=True))


@pytest.fixture(scope="module", params=["transformer", "recurrent"])
def in_8_bits(request, tmp_path_factory) -> Bundle:
    """CTC head and decoder."""
    keras.utils.set_random_seed(0)
    decoder = {"type": request.param, "width": 32, "vocabulary": 258, "encoders": 2}
    decoder |= {"heads": 2, "layers": 2} if request.param == "transformer" else {}
    model = SpeechModel(UNITS.size, WHISPER_LIKE, {"mels": 40}, decoder).build_for()
    vocabulary = Vocabulary(tuple(bytes([byte]) for byte in range(256)), ("<|startoftranscript|>",))
    trained = Bundle.load(save_bundle(tmp_path_factory.mktemp("int8") / "model", model, UNITS, vocabulary))
    exporting.export(trained, int8=True)
    return trained


def test_matrices_are_stored_once_in_8_bits(in_8_bits):
    stored = load_file(weights_path(in_8_bits.directory))
    matrices = {name for name, value in stored.items() if value.dtype == np.int8}
    assert {"decoder/tokens/embeddings", "encoder_1/block_0/expand/kernel", "output/kernel"} <= matrices
    assert {name + SCALE for name in matrices} == {name for name in stored if name.endswith(SCALE)}
    assert {value.dtype for name, value in stored.items() if name not in matrices} == {np.dtype("float16")}
    used, sizes = set(), {value.size for value in stored.values() if value.size >= 1024}
    for name in (ENGINE_GRAPH, DECODER_GRAPH):
        tensors = onnx.load(in_8_bits.directory / name, load_external_data=False).graph.initializer
        external = {t.name for t in tensors if t.data_location == onnx.TensorProto.EXTERNAL}
        used |= external
        assert not [t.name for t in tensors if t.name not in external and np.prod(t.dims) in sizes]
    assert used == set(stored)
    assert (in_8_bits.directory / DECODER_GRAPH).stat().st_size < 100_000


def test_in_8_bits_the_graphs_are_close_to_keras(in_8_bits):
    """Both read the same weights in int8; only ONNX Runtime rounds the activations."""
    by_graph, by_keras = (Engine.load(in_8_bits, backend=backend) for backend in ("onnx", "keras"))
    tokens = np.arange(5, dtype="int32")[None]
    for samples in sounds():
        ours, expected = by_graph.encode(samples), by_keras.encode(samples)
        past = np.zeros((len(expected.memory), 1, 0, 32), "float32")
        logits, wanted = (engine.step(tokens, past, expected.memory)[0] for engine in (by_graph, by_keras))
        for found, other in (
            (ours.memory, expected.memory),
            (ours.log_probs, expected.log_probs),
            (logits, wanted),
        ):
            difference = np.abs(found - other)
            assert 0 < difference.mean() < BOUND_8_BITS * other.std()


def engine_outputs(trained: Bundle) -> np.ndarray:
    return Engine.load(trained, backend="onnx").encode(sounds()[0]).memory


def test_in_8_bits_again_changes_nothing(in_8_bits):
    before = [engine_outputs(in_8_bits), weights_path(in_8_bits.directory).read_bytes()]
    exporting.export(in_8_bits, int8=True)
    after = [engine_outputs(in_8_bits), weights_path(in_8_bits.directory).read_bytes()]
    np.testing.assert_array_equal(before[0], after[0])
    assert before[1] == after[1]


def test_in_float32_from_8_bits(in_8_bits, tmp_path):
    copy = Bundle.load(shutil.copytree(in_8_bits.directory, tmp_path / "copy"))
    exporting.export(copy)
    by_graph, by_keras = (Engine.load(copy, backend=backend) for backend in ("onnx", "keras"))
    ours, expected = (engine.encode(sounds()[0]) for engine in (by_graph, by_keras))
    np.testing.assert_allclose(ours.memory, expected.memory, atol=1e-4)
    np.testing.assert_allclose(ours.log_probs, expected.log_probs, atol=1e-4)
    tokens, past = (
        np.arange(10, dtype="int32").reshape(2, 5),
        np.zeros((len(ours.memory), 2, 0, 32), "float32"),
    )
    (logits, past), (wanted, other) = (
        engine.step(tokens, past, ours.memory) for engine in (by_graph, by_keras)
    )
    np.testing.assert_allclose(logits, wanted, atol=1e-4)
    np.testing.assert_allclose(past, other, atol=1e-4)
    (logits, _), (wanted, _) = (engine.step(tokens, past, ours.memory) for engine in (by_graph, by_keras))
    np.testing.assert_allclose(logits, wanted, atol=1e-4)


@pytest.mark.parametrize("change", ["others", "cut", "none"])
def test_weights_that_the_graph_does_not_fit_are_refused(tmp_path, change):
    trained = bundle(tmp_path / "model", [{"type": "recurrent", "width": 24, "layers": 1, "stack": 4}])
    exporting.export(trained)
    Engine.load(trained)
    path = weights_path(trained.directory)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink() if change == "none" else path.write_bytes(content[:-1] if change == "cut" else content)
    with pytest.raises(BundleError, match=r"training\.export again|needs its weights") as error:
        Engine.load(trained)
    assert ENGINE_GRAPH in str(error.value) or path.name in str(error.value)
    assert "\n" not in str(error.value)
