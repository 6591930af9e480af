"""training/import_whisper.py on a tiny made-up Whisper, written in each format that people have."""

import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from scipy.special import erf

from asr.encoders.transformer import sinusoids
from asr.model import SpeechModel
from training.commands import main
from training.import_whisper import WeightsError, assign_whisper, dimensions, read_whisper

WIDTH, HEADS, LAYERS, MELS = 128, 2, 2, 8


def whisper() -> dict[str, np.ndarray]:
    """The state dictionary of a Whisper with random weights, under OpenAI's names."""
    random = np.random.default_rng(0)
    weights = {}

    def add(name, *shape):
        weights[name] = random.normal(0, 0.1, shape).astype("float16").astype("float32")

    def linear(name, outputs, *inputs, bias=True):
        add(f"{name}.weight", outputs, *inputs)
        if bias:
            add(f"{name}.bias", outputs)

    linear("encoder.conv1", WIDTH, MELS, 3)
    linear("encoder.conv2", WIDTH, WIDTH, 3)
    for block in [f"encoder.blocks.{i}" for i in range(LAYERS)]:
        for part in ("query", "key", "value", "out"):
            linear(f"{block}.attn.{part}", WIDTH, WIDTH, bias=part != "key")
        linear(f"{block}.attn_ln", WIDTH)
        linear(f"{block}.mlp.0", 4 * WIDTH, WIDTH)
        linear(f"{block}.mlp.2", WIDTH, 4 * WIDTH)
        linear(f"{block}.mlp_ln", WIDTH)
    linear("encoder.ln_post", WIDTH)
    add("encoder.positional_embedding", 1500, WIDTH)
    add("decoder.token_embedding.weight", 50, WIDTH)
    return weights


def write_openai(path, weights, dtype="float32", content=None):
    """What torch.save writes, with stand-ins for the few names of torch that its index mentions."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def class_of(name, module):
        made = type(name, (), {"__module__": module.__name__})
        setattr(module, name, made)
        return made

    storage_class = class_of({"float32": "FloatStorage", "float16": "HalfStorage"}[dtype], torch)

    def _rebuild_tensor_v2(*_):
        raise AssertionError("only named, never called")

    _rebuild_tensor_v2.__module__ = utils.__name__
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2

    class Tensor:
        def __init__(self, key, shape, strides, offset, size):
            self.key, self.shape, self.strides, self.offset, self.size = key, shape, strides, offset, size

        def __reduce__(self):
            storage = Storage(self.key, self.size)
            arguments = (storage, self.offset, self.shape, self.strides, False, OrderedDict())
            return _rebuild_tensor_v2, arguments

    class Storage:
        def __init__(self, key, size):
            self.key, self.size = key, size

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            if isinstance(thing, Storage):
                return ("storage", storage_class, thing.key, "cpu", thing.size)
            return None

    tensors = OrderedDict()
    with zipfile.ZipFile(path, "w") as archive, pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        for i, (name, value) in enumerate(weights.items()):
            # Every second matrix lies transposed behind some other numbers, as views do.
            transposed = i % 2 and value.ndim == 2
            stored = value.T if transposed else value
            size = stored.size + 7
            data = np.concatenate([np.zeros(7), stored.ravel()]).astype(dtype)
            strides = tuple(s // value.itemsize for s in np.ascontiguousarray(stored).strides)
            strides = strides[::-1] if transposed else strides
            archive.writestr(f"tiny/data/{i}", data.tobytes())
            tensors[name] = Tensor(str(i), value.shape, strides, 7, size)
        with archive.open("tiny/data.pkl", "w") as file:
            whole = {"dims": {"n_mels": MELS}, "model_state_dict": tensors}
            Pickler(file, protocol=2).dump(whole if content is None else content(tensors))


def write_hugging_face(path, weights):
    names = {
        "encoder.ln_post": "encoder.layer_norm",
        ".blocks.": ".layers.",
        "attn.query": "self_attn.q_proj",
        "attn.key": "self_attn.k_proj",
        "attn.value": "self_attn.v_proj",
        "attn.out": "self_attn.out_proj",
        "attn_ln": "self_attn_layer_norm",
        "mlp.0": "fc1",
        "mlp.2": "fc2",
        "mlp_ln": "final_layer_norm",
        "positional_embedding": "embed_positions.weight",
    }
    renamed = {}
    for name, value in weights.items():
        for theirs, hugging_face in names.items():
            name = name.replace(theirs, hugging_face)
        renamed[f"model.{name}"] = value
    save_file(renamed, path)


def write_ctranslate2(path, weights, dtype="float32"):
    variables = {"encoder/position_encodings/encodings": weights["encoder.positional_embedding"]}

    def copy(ours, theirs, norm=False):
        for own, name in (
            (("weight", "gamma"), ("bias", "beta")) if norm else (("weight",) * 2, ("bias",) * 2)
        ):
            variables[f"{theirs}/{name}"] = weights[f"encoder.{ours}.{own}"]

    copy("conv1", "encoder/conv1")
    copy("conv2", "encoder/conv2")
    copy("ln_post", "encoder/layer_norm", norm=True)
    for i in range(LAYERS):
        ours, theirs = f"blocks.{i}", f"encoder/layer_{i}"
        attention = f"encoder.{ours}.attn"
        joint = [weights[f"{attention}.{part}.weight"] for part in ("query", "key", "value")]
        biases = [weights[f"{attention}.query.bias"], np.zeros(WIDTH), weights[f"{attention}.value.bias"]]
        variables[f"{theirs}/self_attention/linear_0/weight"] = np.concatenate(joint)
        variables[f"{theirs}/self_attention/linear_0/bias"] = np.concatenate(biases)
        copy(f"{ours}.attn.out", f"{theirs}/self_attention/linear_1")
        copy(f"{ours}.attn_ln", f"{theirs}/self_attention/layer_norm", norm=True)
        copy(f"{ours}.mlp.0", f"{theirs}/ffn/linear_0")
        copy(f"{ours}.mlp.2", f"{theirs}/ffn/linear_1")
        copy(f"{ours}.mlp_ln", f"{theirs}/ffn/layer_norm", norm=True)

    def text(value):
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    code = {"float32": 0, "int8": 1, "float16": 4}[dtype]
    with open(path, "wb") as file:
        file.write(struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(variables)))
        for name, value in variables.items():
            data = value.astype(dtype).tobytes()
            file.write(text(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape))
            file.write(struct.pack("<BI", code, len(data)) + data)
        file.write(struct.pack("<I", 0))  # no aliases


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    write_openai(folder / "tiny.pt", whisper())
    write_openai(folder / "half.pt", whisper(), "float16")
    write_hugging_face(folder / "model.safetensors", whisper())
    write_ctranslate2(folder / "model.bin", whisper())
    write_ctranslate2(folder / "half.bin", whisper(), "float16")
    return folder


def refusal(path) -> str:
    with pytest.raises(WeightsError) as error:
        read_whisper(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


@pytest.mark.parametrize("name", ["half.pt", "model.safetensors", "model.bin", "half.bin"])
def test_all_formats_give_the_same_weights(folder, name):
    expected, weights = read_whisper(folder / "tiny.pt"), read_whisper(folder / name)
    assert weights.keys() == expected.keys()
    for key, value in weights.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, expected[key])
    assert dimensions(weights) == {"width": WIDTH, "layers": LAYERS, "heads": HEADS, "subsampling": 2}


def whisper_encoder(weights, mel):
    """Whisper's encoder written in NumPy, float64: [frames, mels] → [steps, width]."""

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T.astype("float64") + weights.get(f"{name}.bias", 0.0)

    def norm(name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def gelu(x):
        return x * (1 + erf(x / np.sqrt(2))) / 2

    def convolution(name, x, stride):
        x, kernel = np.pad(x, [(1, 1), (0, 0)]), weights[f"{name}.weight"]
        windows = [x[i : i + 3] for i in range(0, len(x) - 2, stride)]
        return np.einsum("tkc,ock->to", windows, kernel) + weights[f"{name}.bias"]

    x = gelu(convolution("encoder.conv1", mel.astype("float64"), 1))
    x = gelu(convolution("encoder.conv2", x, 2))
    x = x + np.array(sinusoids(len(x), WIDTH))
    for i in range(LAYERS):
        block = f"encoder.blocks.{i}"
        y = norm(f"{block}.attn_ln", x)
        query, key, value = (
            linear(f"{block}.attn.{part}", y).reshape(len(y), HEADS, -1) for part in ("query", "key", "value")
        )
        scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(WIDTH // HEADS)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        x = x + linear(f"{block}.attn.out", np.einsum("hqk,khd->qhd", shares, value).reshape(len(y), -1))
        x = x + linear(f"{block}.mlp.2", gelu(linear(f"{block}.mlp.0", norm(f"{block}.mlp_ln", x))))
    return norm("encoder.ln_post", x)


@pytest.mark.parametrize("split", [False, True])
def test_the_encoder_gives_whispers_numbers(folder, split):
    weights = read_whisper(folder / "model.bin")
    whole = {"type": "transformer", **dimensions(weights)}
    parts = [
        {**whole, "layers": 1, "final_norm": False},
        {**whole, "layers": 1, "subsampling": 1, "stem": False},
    ]
    model = SpeechModel(3, parts if split else [whole]).build_for(width=MELS)
    assign_whisper(model, weights)
    mel = np.random.default_rng(1).standard_normal((20, MELS)).astype("float32")
    encoded, _ = model.encode(mel[None], np.int32([20]))
    np.testing.assert_allclose(encoded[0], whisper_encoder(whisper(), mel), atol=1e-4)


def test_other_sizes_do_not_fit(folder):
    weights = read_whisper(folder / "tiny.pt")
    model = SpeechModel(3, [{"type": "transformer", **dimensions(weights), "layers": 3}]).build_for(
        width=MELS
    )
    with pytest.raises(WeightsError, match="do not fit this encoder: block_2/"):
        assign_whisper(model, weights)


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("call", [("os", "mkdir"), ("builtins", "exec"), ("builtins", "getattr")])
def test_nothing_in_a_pickle_is_executed(tmp_path, call):
    module, name = call
    trap = tmp_path / "trap"
    argument = f"import os; os.mkdir({str(trap)!r})" if name == "exec" else str(trap)
    function = getattr(sys.modules[module], name)
    write_openai(tmp_path / "evil.pt", whisper(), content=lambda _: Malicious(function, argument))
    assert "refused: " in refusal(tmp_path / "evil.pt")
    assert not trap.exists()


def test_tensors_must_lie_within_their_storage(tmp_path):
    def larger(tensors):
        tensors["encoder.ln_post.bias"].shape = (10**9,)
        return {"model_state_dict": tensors}

    write_openai(tmp_path / "large.pt", whisper(), content=larger)
    assert "beyond its storage" in refusal(tmp_path / "large.pt")


def test_integers_are_refused(tmp_path):
    write_ctranslate2(tmp_path / "int8.bin", whisper(), "int8")
    assert "quantised to integers" in refusal(tmp_path / "int8.bin")


def test_what_is_no_whisper(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.pt")
    save_file({"a": np.zeros(3)}, tmp_path / "other.safetensors")
    assert "0 of 6 encoder weights found: no Whisper model" in refusal(tmp_path / "other.safetensors")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("a", b"")
    assert "a zip without data.pkl" in refusal(tmp_path / "other.pt")


@settings(max_examples=60)
@given(
    name=st.sampled_from(["tiny.pt", "model.safetensors", "model.bin"]),
    share=st.floats(0, 0.999),
    flips=st.lists(st.tuples(st.floats(0, 0.02), st.integers(1, 255)), max_size=3),
    cut=st.booleans(),
)
def test_damaged_files_are_refused_or_read(folder, name, share, flips, cut):
    data = bytearray((folder / name).read_bytes())
    if cut:
        data = data[: int(share * len(data))]
    for position, mask in flips:
        if data:
            data[int(position * len(data))] ^= mask
    damaged = folder / f"damaged-{name}"
    damaged.write_bytes(data)
    try:
        weights = read_whisper(damaged)
    except WeightsError as error:
        assert "\n" not in str(error)
    else:
        assert weights["norm/gamma"].shape == (WIDTH,)


def test_command_line(folder, tmp_path, capsys):
    output = tmp_path / "new" / "encoder.safetensors"
    assert main(["import-whisper", str(folder / "model.bin"), str(output)]) == 0
    expected = read_whisper(folder / "tiny.pt")
    written = load_file(output)
    assert written.keys() == expected.keys()
    assert "'width': 128" in capsys.readouterr().err
    assert main(["import-whisper", str(tmp_path / "none.pt"), str(output)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'none.pt'}: No such file or directory\n"
