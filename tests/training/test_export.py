"""training/export.py: the graph computes what Keras computes, from the bundle's own weights."""

import shutil

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import load_file

from asr.bundle import (
    SCALE,
    Bundle,
    BundleError,
    save_bundle,
    store_in_8_bits,
    variable_name,
    weights_path,
)
from asr.engine import DECODER_GRAPH, ENGINE_GRAPH, Engine
from asr.model import SpeechModel
from asr.tokenizer import Tokenizer
from asr.vocabulary import Vocabulary
from training import export as exporting

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


@pytest.fixture(scope="module")
def whisper_like(tmp_path_factory) -> Bundle:
    return bundle(tmp_path_factory.mktemp("bundle"), WHISPER_LIKE)


@pytest.mark.parametrize(("scale", "encoders"), MODELS.values(), ids=MODELS)
def test_same_log_probs_as_keras(tmp_path, scale, encoders):
    trained = bundle(tmp_path / "model", encoders, scale)
    [path] = exporting.export(trained)
    by_graph, by_keras = (Engine.load(trained, backend=backend) for backend in ("onnx", "keras"))
    for samples in sounds():
        ours, expected = by_graph.log_probs(samples), by_keras.log_probs(samples)
        assert ours.shape == expected.shape
        np.testing.assert_allclose(ours, expected, atol=1e-3)
    # Every weight is read from the file, and none is in the graph a second time.
    graph = onnx.load(path, load_external_data=False).graph
    external = {t.name: t for t in graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    variables = {variable_name(v): v for v in trained.build_model().weights if "seed" not in v.path}
    assert set(external) == set(variables)
    sizes = {np.prod(v.shape) for v in variables.values() if np.prod(v.shape) >= 1024}
    assert not [t.name for t in graph.initializer if t.name not in external and np.prod(t.dims) in sizes]


def test_8_bits_are_those_of_onnx_runtimes_own_quantisation(whisper_like, tmp_path):
    store_in_8_bits(whisper_like)  # first, so that both start from the same weights
    [path] = exporting.export(whisper_like)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # folds constants
    options.optimized_model_filepath = str(tmp_path / "float32.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [node.name for node in onnx.load(tmp_path / "float32.onnx").graph.node]
    model = whisper_like.build_model()
    quantize_dynamic(
        tmp_path / "float32.onnx",
        tmp_path / "int8.onnx",
        op_types_to_quantize=["MatMul", "LSTM"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"WeightSymmetric": True},
        nodes_to_exclude=[name for name in names if exporting._has_wide_range(name, model)],
    )
    samples = sounds()[0][None]
    inputs = {"inputs": samples, "lengths": np.int32([samples.shape[1]])}

    def run(path):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(["log_probs"], inputs)[0]

    in_float = run(path)
    [path] = exporting.export(whisper_like, int8=True)
    ours = run(path)
    np.testing.assert_array_equal(ours, run(tmp_path / "int8.onnx"))
    assert not np.array_equal(ours, in_float)


@pytest.fixture(scope="module")
def in_8_bits(tmp_path_factory) -> Bundle:
    """CTC head and decoder."""
    keras.utils.set_random_seed(0)
    decoder = {"type": "transformer", "width": 32, "heads": 2, "layers": 2, "vocabulary": 258, "encoders": 2}
    model = SpeechModel(UNITS.size, WHISPER_LIKE, {"mels": 40}, decoder).build_for()
    vocabulary = Vocabulary(tuple(bytes([byte]) for byte in range(256)), ("<|startoftranscript|>",))
    trained = Bundle.load(save_bundle(tmp_path_factory.mktemp("int8") / "model", model, UNITS, vocabulary))
    exporting.export(trained, int8=True)
    return trained


def test_matrices_are_stored_once_in_8_bits(in_8_bits):
    stored = load_file(weights_path(in_8_bits.directory))
    matrices = {name for name, value in stored.items() if value.dtype == np.int8}
    assert {"decoder/tokens/embeddings", "decoder/block_1/expand/kernel", "output/kernel"} <= matrices
    assert {name + SCALE for name in matrices} == {name for name in stored if name.endswith(SCALE)}
    assert {value.dtype for name, value in stored.items() if name not in matrices} == {np.dtype("float16")}
    used = set()
    for name in (ENGINE_GRAPH, DECODER_GRAPH):
        tensors = onnx.load(in_8_bits.directory / name, load_external_data=False).graph.initializer
        external = {t.name for t in tensors if t.data_location == onnx.TensorProto.EXTERNAL}
        used |= external
        assert not [t.name for t in tensors if t.name not in external and len(t.raw_data) > 100_000]
    assert used == set(stored)
    assert (in_8_bits.directory / DECODER_GRAPH).stat().st_size < 100_000


def test_in_8_bits_the_graphs_are_close_to_keras(in_8_bits):
    """Both read the same weights in int8; only ONNX Runtime rounds the activations."""
    by_graph, by_keras = (Engine.load(in_8_bits, backend=backend) for backend in ("onnx", "keras"))
    tokens, past = np.arange(5, dtype="int32")[None], np.zeros((4, 1, 0, 32), "float32")
    for samples in sounds():
        ours, expected = by_graph.encode(samples), by_keras.encode(samples)
        logits, wanted = (engine.step(tokens, past, expected.memory)[0] for engine in (by_graph, by_keras))
        for found, other in (
            (ours.memory, expected.memory),
            (ours.log_probs, expected.log_probs),
            (logits, wanted),
        ):
            difference = np.abs(found - other)
            assert 0 < difference.mean() < BOUND_8_BITS * other.std()


def test_in_8_bits_again_changes_nothing(in_8_bits):
    files = [weights_path(in_8_bits.directory), *in_8_bits.directory.glob("*.onnx")]
    before = {path: path.read_bytes() for path in files}
    exporting.export(in_8_bits, int8=True)
    assert {path: path.read_bytes() for path in files} == before


def test_in_float32_from_8_bits(in_8_bits, tmp_path):
    copy = Bundle.load(shutil.copytree(in_8_bits.directory, tmp_path / "copy"))
    exporting.export(copy)
    by_graph, by_keras = (Engine.load(copy, backend=backend) for backend in ("onnx", "keras"))
    ours, expected = (engine.encode(sounds()[0]) for engine in (by_graph, by_keras))
    np.testing.assert_allclose(ours.memory, expected.memory, atol=1e-4)
    np.testing.assert_allclose(ours.log_probs, expected.log_probs, atol=1e-4)
    tokens, past = np.arange(5, dtype="int32")[None], np.zeros((4, 1, 0, 32), "float32")
    logits, wanted = (engine.step(tokens, past, ours.memory)[0] for engine in (by_graph, by_keras))
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
