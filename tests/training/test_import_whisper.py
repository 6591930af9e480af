"""training/import_whisper.py on a tiny made-up Whisper, written in each format that people have."""

import base64
import json
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
from safetensors.numpy import save_file
from scipy.special import erf

from asr.bundle import Bundle
from asr.encoders.transformer import sinusoids
from asr.vocabulary import BYTE_CHARACTERS, Vocabulary
from training.commands import main
from training.import_whisper import (
    ENGLISH_ONLY_SIZE,
    TIMES,
    WeightsError,
    description,
    read_vocabulary,
    read_whisper,
)

WIDTH, HEADS, LAYERS, MELS, POSITIONS = 128, 2, 2, 8, 448
TOKENS = [*(bytes([byte]) for byte in range(256)), b" t", b" th", b" the", b"on"]
LANGUAGES = ["en", "zh", "de", *(f"x{i}" for i in range(96))]
SPECIAL = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{language}|>" for language in LANGUAGES),
    *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"),
    *("<|notimestamps|>", *(f"<|{0.02 * i:.2f}|>" for i in range(TIMES))),
]
SIZE = len(TOKENS) + len(SPECIAL)
MARKS = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")


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
    for stack in ("encoder", "decoder"):
        for block in [f"{stack}.blocks.{i}" for i in range(LAYERS)]:
            for attention in ("attn", "cross_attn") if stack == "decoder" else ("attn",):
                for part in ("query", "key", "value", "out"):
                    linear(f"{block}.{attention}.{part}", WIDTH, WIDTH, bias=part != "key")
                linear(f"{block}.{attention}_ln", WIDTH)
            linear(f"{block}.mlp.0", 4 * WIDTH, WIDTH)
            linear(f"{block}.mlp.2", WIDTH, 4 * WIDTH)
            linear(f"{block}.mlp_ln", WIDTH)
    linear("encoder.ln_post", WIDTH)
    linear("decoder.ln", WIDTH)
    add("encoder.positional_embedding", 1500, WIDTH)
    add("decoder.positional_embedding", POSITIONS, WIDTH)
    add("decoder.token_embedding.weight", SIZE, WIDTH)
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
        "decoder.ln": "decoder.layer_norm",
        ".blocks.": ".layers.",
        "cross_attn_ln": "encoder_attn_layer_norm",
        "cross_attn.": "encoder_attn.",
        ".attn_ln": ".self_attn_layer_norm",
        ".attn.": ".self_attn.",
        ".query": ".q_proj",
        ".key": ".k_proj",
        ".value": ".v_proj",
        ".out": ".out_proj",
        "mlp.0": "fc1",
        "mlp.2": "fc2",
        "mlp_ln": "final_layer_norm",
        "positional_embedding": "embed_positions.weight",
        "token_embedding": "embed_tokens",
    }
    renamed = {}
    for name, value in weights.items():
        for theirs, hugging_face in names.items():
            name = name.replace(theirs, hugging_face)
        renamed[f"model.{name}"] = value
    save_file(renamed, path)


def write_ctranslate2(path, weights, dtype="float32"):
    variables = {
        "encoder/position_encodings/encodings": weights["encoder.positional_embedding"],
        "decoder/position_encodings/encodings": weights["decoder.positional_embedding"],
        "decoder/embeddings/weight": weights["decoder.token_embedding.weight"],
        "decoder/scale_embeddings": np.int8(0),
    }

    def copy(ours, theirs, norm=False):
        for own, name in (
            (("weight", "gamma"), ("bias", "beta")) if norm else (("weight",) * 2, ("bias",) * 2)
        ):
            variables[f"{theirs}/{name}"] = weights[f"{ours}.{own}"]

    def join(ours, parts, theirs):
        variables[f"{theirs}/weight"] = np.concatenate([weights[f"{ours}.{part}.weight"] for part in parts])
        biases = [weights.get(f"{ours}.{part}.bias", np.zeros(WIDTH)) for part in parts]
        variables[f"{theirs}/bias"] = np.concatenate(biases)

    copy("encoder.conv1", "encoder/conv1")
    copy("encoder.conv2", "encoder/conv2")
    copy("encoder.ln_post", "encoder/layer_norm", norm=True)
    copy("decoder.ln", "decoder/layer_norm", norm=True)
    for stack in ("encoder", "decoder"):
        for i in range(LAYERS):
            ours, theirs = f"{stack}.blocks.{i}", f"{stack}/layer_{i}"
            join(f"{ours}.attn", ("query", "key", "value"), f"{theirs}/self_attention/linear_0")
            copy(f"{ours}.attn.out", f"{theirs}/self_attention/linear_1")
            copy(f"{ours}.attn_ln", f"{theirs}/self_attention/layer_norm", norm=True)
            if stack == "decoder":
                join(f"{ours}.cross_attn", ("query",), f"{theirs}/attention/linear_0")
                join(f"{ours}.cross_attn", ("key", "value"), f"{theirs}/attention/linear_1")
                copy(f"{ours}.cross_attn.out", f"{theirs}/attention/linear_2")
                copy(f"{ours}.cross_attn_ln", f"{theirs}/attention/layer_norm", norm=True)
            copy(f"{ours}.mlp.0", f"{theirs}/ffn/linear_0")
            copy(f"{ours}.mlp.2", f"{theirs}/ffn/linear_1")
            copy(f"{ours}.mlp_ln", f"{theirs}/ffn/layer_norm", norm=True)

    def text(value):
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    code = {"float32": 0, "int8": 1, "float16": 4}[dtype]
    with open(path, "wb") as file:
        file.write(struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(variables)))
        for name, value in variables.items():
            kind, data = (code, value.astype(dtype).tobytes()) if value.ndim else (1, value.tobytes())
            file.write(text(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape))
            file.write(struct.pack("<BI", kind, len(data)) + data)
        file.write(struct.pack("<I", 0))  # no aliases


def write_vocabulary(path, tokens=TOKENS, special=SPECIAL):
    """A vocabulary in the form that the file's name tells."""
    names = ["".join(BYTE_CHARACTERS[byte] for byte in token) for token in tokens]
    ids = {name: id for id, name in enumerate([*names, *special])}
    if path.suffix == ".tiktoken":
        lines = [f"{base64.b64encode(token).decode()} {id}" for id, token in enumerate(tokens)]
        text = "\n".join(lines) + "\n"
    elif path.suffix == ".txt":
        text = "\n".join(ids) + "\n"
    elif path.name == "vocabulary.json":
        text = json.dumps(list(ids))
    elif path.name == "vocab.json":
        text = json.dumps({name: ids[name] for name in [*names[::-1], "<|endoftext|>"]})
    else:
        added = [{"id": ids[name], "content": name, "special": True} for name in special]
        vocabulary = {name: ids[name] for name in names}
        text = json.dumps({"added_tokens": added, "model": {"type": "BPE", "vocab": vocabulary}})
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    write_vocabulary(folder / "vocabulary.json")
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
    stack = {"type": "transformer", "width": WIDTH, "heads": HEADS}
    assert description(weights)["decoder"] == {**stack, "layers": LAYERS, "vocabulary": SIZE}
    assert [encoder["layers"] for encoder in description(weights)["encoders"]] == [1, 1]


class Reference:
    """Whisper written in NumPy, float64."""

    def __init__(self, weights):
        self.weights = {name: value.astype("float64") for name, value in weights.items()}

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)

    def norm(self, name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def convolution(self, name, x, stride):
        x, kernel = np.pad(x, [(1, 1), (0, 0)]), self.weights[f"{name}.weight"]
        windows = [x[i : i + 3] for i in range(0, len(x) - 2, stride)]
        return np.einsum("tkc,ock->to", windows, kernel) + self.weights[f"{name}.bias"]

    def attention(self, name, x, other, mask=True):
        query, key, value = (
            self.linear(f"{name}.{part}", y).reshape(len(y), HEADS, -1)
            for part, y in (("query", x), ("key", other), ("value", other))
        )
        scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(WIDTH // HEADS)
        weights = np.exp(scores - scores.max(-1, keepdims=True)) * mask
        weights /= weights.sum(-1, keepdims=True)
        return self.linear(f"{name}.out", np.einsum("hqk,khd->qhd", weights, value).reshape(len(x), -1))

    def feed_forward(self, block, x):
        return self.linear(
            f"{block}.mlp.2", gelu(self.linear(f"{block}.mlp.0", self.norm(f"{block}.mlp_ln", x)))
        )

    def encoder(self, mel):
        """[frames, mels] → [steps, width]"""
        x = gelu(self.convolution("encoder.conv1", mel.astype("float64"), 1))
        x = gelu(self.convolution("encoder.conv2", x, 2))
        x = x + np.array(sinusoids(len(x), WIDTH))
        for block in [f"encoder.blocks.{i}" for i in range(LAYERS)]:
            y = self.norm(f"{block}.attn_ln", x)
            x = x + self.attention(f"{block}.attn", y, y)
            x = x + self.feed_forward(block, x)
        return self.norm("encoder.ln_post", x)

    def decoder(self, tokens, encoded):
        """[tokens], [steps, width] → logits [tokens, vocabulary]"""
        embeddings = self.weights["decoder.token_embedding.weight"]
        x = embeddings[tokens] + self.weights["decoder.positional_embedding"][: len(tokens)]
        for block in [f"decoder.blocks.{i}" for i in range(LAYERS)]:
            y = self.norm(f"{block}.attn_ln", x)
            x = x + self.attention(f"{block}.attn", y, y, np.tri(len(tokens)))
            x = x + self.attention(f"{block}.cross_attn", self.norm(f"{block}.cross_attn_ln", x), encoded)
            x = x + self.feed_forward(block, x)
        return self.norm("decoder.ln", x) @ embeddings.T


def gelu(x):
    return x * (1 + erf(x / np.sqrt(2))) / 2


def imported(folder, output, *options) -> Bundle:
    assert main(["import-whisper", str(folder / "model.bin"), str(output), *map(str, options)]) == 0
    return Bundle.load(output)


def test_an_imported_model_gives_whispers_numbers(folder, tmp_path, capsys):
    bundle = imported(folder, tmp_path / "new" / "tiny")
    assert capsys.readouterr().err == f"{tmp_path}/new/tiny: {len(TOKENS) + 5} tokens\n"
    assert bundle.vocabulary == Vocabulary(tuple(TOKENS), MARKS)
    assert not bundle.has_ctc
    assert bundle.silence_seconds == 6
    model, reference = bundle.build_model(), Reference(whisper())
    mel = np.random.default_rng(1).standard_normal((20, MELS)).astype("float32")
    encoded, lengths = model.encode(mel[None], np.int32([20]))
    expected = reference.encoder(mel)
    np.testing.assert_allclose(encoded[0], expected, atol=1e-4)
    ours = bundle.vocabulary.around("the moon")
    prompt = [len(TOKENS) + SPECIAL.index(mark) for mark in MARKS]
    text = [TOKENS.index(token) for token in (b" the", b" ", b"m", b"o", b"on")]
    theirs = [*prompt, *text, len(TOKENS)]
    logits = reference.decoder(theirs, expected)
    kept = [*range(len(TOKENS) + 1), *prompt]
    assert [kept[id] for id in ours] == theirs
    found = model.decoder(np.int32([ours]), encoded, lengths)[0]
    np.testing.assert_allclose(found, logits[:, kept], atol=1e-4)


def test_rare_tokens_can_be_left_out(folder, tmp_path):
    (tmp_path / "book.txt").write_text("the\nthe the\n")
    row = {"audio_filepath": "a.wav", "duration": 1.0, "text": "the", "text_cased": "The thing."}
    (tmp_path / "said.jsonl").write_text(json.dumps(row) + "\n")
    texts = "--texts", tmp_path / "book.txt", tmp_path / "said.jsonl"
    whole = imported(folder, tmp_path / "whole")
    small = imported(folder, tmp_path / "small", "--tokens", 20, *texts)
    assert small.vocabulary.tokens == tuple(TOKENS[:-1])  # with what " the" is made of, without "on"
    assert small.config["decoder"]["vocabulary"] == small.vocabulary.size == whole.vocabulary.size - 1
    text = "the moon"
    encoded = np.random.default_rng(0).standard_normal((1, 5, WIDTH)).astype("float32")
    kept = [*range(len(TOKENS) - 1), *range(len(TOKENS), whole.vocabulary.size)]
    tokens = small.vocabulary.around(text)
    assert small.vocabulary.decode(tokens) == " " + text
    models = small.build_model(), whole.build_model()
    found, expected = (
        model.decoder(np.int32([ids]), encoded, np.int32([5]))[0]
        for model, ids in zip(models, (tokens, [kept[id] for id in tokens]), strict=True)
    )
    np.testing.assert_allclose(found, np.array(expected)[:, kept], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tokens", "9"], "--tokens and --texts go together: give both"),
        (["--texts", "empty.txt"], "--tokens and --texts go together: give both"),
        (["--tokens", "9", "--texts", "empty.txt"], "--texts: no text in these files"),
        (["--tokens", "9", "--texts", "none.txt"], "none.txt: No such file or directory"),
        (
            ["--language", "xx"],
            "{folder}/vocabulary.json: has no language 'xx': it must be the",
        ),
        (["--vocabulary", "empty.txt"], "empty.txt: has 1 tokens of text, which do not fit the model's 1868"),
    ],
)
def test_wrong_calls_are_refused_in_one_line(folder, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").touch()
    assert main(["import-whisper", str(folder / "model.bin"), "new", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: " + message.format(folder=folder))
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_model_without_a_vocabulary_beside_it(folder, tmp_path, capsys):
    write_openai(tmp_path / "tiny.pt", whisper())
    assert main(["import-whisper", str(tmp_path / "tiny.pt"), str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}/tiny.pt: none of vocabulary.json, ")
    assert "name it by --vocabulary" in error
    tokens = write_vocabulary(tmp_path / "multilingual.tiktoken")
    arguments = ["import-whisper", str(tmp_path / "tiny.pt"), str(tmp_path / "new")]
    assert main([*arguments, "--vocabulary", str(tokens)]) == 0
    assert Bundle.load(tmp_path / "new").vocabulary == Vocabulary(tuple(TOKENS), MARKS)


NAMES = ["vocabulary.json", "vocabulary.txt", "vocab.json", "tokenizer.json", "multilingual.tiktoken"]
ENGLISH_TOKENS = [*(bytes([byte]) for byte in range(256)), *(struct.pack(">H", i) for i in range(50_000))]


@pytest.mark.parametrize("name", NAMES)
def test_every_form_of_vocabulary(tmp_path, name):
    path = write_vocabulary(tmp_path / name)
    vocabulary, ids = read_vocabulary(path, SIZE)
    assert vocabulary == Vocabulary(tuple(TOKENS), MARKS)
    end = len(TOKENS)
    assert ids == [*range(end + 1), end + 1, end + 2, SIZE - TIMES - 5, SIZE - TIMES - 1]
    assert [SPECIAL[id - end] for id in ids[end + 1 :]] == list(MARKS)
    # large-v3 knows one language more.
    _, ids = read_vocabulary(
        write_vocabulary(path, special=[*SPECIAL[:101], "<|yue|>", *SPECIAL[101:]]), SIZE + 1
    )
    assert ids[-3:] == [end + 2, SIZE + 1 - TIMES - 5, SIZE + 1 - TIMES - 1]
    # Models for English only have the same marks and use two of them.
    path = write_vocabulary(path, tokens=ENGLISH_TOKENS)
    vocabulary, ids = read_vocabulary(path, ENGLISH_ONLY_SIZE)
    assert vocabulary.marks == ("<|startoftranscript|>", "<|notimestamps|>")
    assert ids[-3:] == [50_256, 50_257, 50_362]
    assert [SPECIAL[id - 50_256] for id in ids[-2:]] == list(vocabulary.marks)


@pytest.mark.parametrize("name", ["vocabulary.json", "vocabulary.txt", "tokenizer.json"])
def test_another_language(tmp_path, name):
    path = write_vocabulary(tmp_path / name)
    vocabulary, ids = read_vocabulary(path, SIZE, "de")
    assert vocabulary.marks[1] == "<|de|>"
    assert ids[-3] == len(TOKENS) + SPECIAL.index("<|de|>")
    with pytest.raises(WeightsError, match="is of a model for English only"):
        read_vocabulary(write_vocabulary(path, tokens=ENGLISH_TOKENS), ENGLISH_ONLY_SIZE, "de")


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(NAMES), cut=st.floats(0, 1), junk=st.binary(max_size=6))
def test_damaged_vocabularies_are_refused_or_read(tmp_path_factory, name, cut, junk):
    path = write_vocabulary(tmp_path_factory.mktemp("vocabulary") / name)
    data = path.read_bytes()
    at = int(cut * len(data))
    path.write_bytes(data[:at] + junk + (data[at + len(junk) :] if len(junk) % 2 else b""))
    try:
        vocabulary, ids = read_vocabulary(path, SIZE)
    except WeightsError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert vocabulary.size == len(ids)
        assert vocabulary.end == len(TOKENS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", '{"a": 0, "b": 2}', "the ids of its 2 tokens are not 0 to 1"),
        ("vocab.json", "3", "it must be the vocabulary of this Whisper"),
        ("vocabulary.json", "[1, 2]", "'int' object is not iterable: it must be"),
        ("vocabulary.json", "[" * 100_000, "it must be the vocabulary of this Whisper"),
        ("tokenizer.json", "{}", "it must be the vocabulary of this Whisper"),
        ("a.tiktoken", " \n", "it must be the vocabulary of this Whisper"),
    ],
)
def test_what_is_no_vocabulary(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(WeightsError, match=message) as error:
        read_vocabulary(tmp_path / name, SIZE)
    assert str(error.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(error.value)


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
        assert weights["encoder_1/norm/gamma"].shape == (WIDTH,)
