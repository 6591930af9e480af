"""A bundle from a file of a Whisper model: python -m training.import_whisper FILE OUTPUT

Reads OpenAI's .pt, Hugging Face's .safetensors and CTranslate2's model.bin of any size, with the vocabulary
beside it. The bundle transcribes as it is, without a CTC head, and training can start from it. Nothing in a
file is executed: a .pt is a zip of plain arrays and a pickled index, of which only the few instructions that
describe tensors are run.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("import-whisper")

import argparse
import base64
import io
import json
import pickle
import re
import struct
import sys
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from string import capwords

import numpy as np
from safetensors.numpy import load_file

from asr.bundle import write_bundle
from asr.features import FRAME_SECONDS
from asr.files import READ_ERRORS, open_file, reason
from asr.tokenizer import Tokenizer
from asr.vocabulary import CHARACTER_BYTES, Vocabulary
from training.manifest import MANIFESTS, manifest_kind, read_manifest

HEAD_WIDTH = 64  # of every Whisper model
ENGLISH_ONLY_SIZE = 51_864  # of the vocabulary; the others know many languages
SILENCE_SECONDS = 6.0  # after each utterance, without which short ones repeat themselves
TIMES = 1_501  # tokens of times, the last ones of every vocabulary
LANGUAGES = (99, 100)  # tokens of languages, the latter in large-v3 and its kin
VOCABULARY_FILES = ("vocabulary.json", "vocabulary.txt", "vocab.json", "tokenizer.json")

# Parts of the names in each format, and ours; replaced in this order.
_STEM = {"conv1": "stem/conv_0", "conv2": "stem/conv_1"}
_OPENAI = {
    **_STEM,
    **{"token_embedding": "tokens", "positional_embedding": "positions.weight"},
    **{"cross_attn_ln": "cross_attention_norm", "cross_attn.": "cross_attention."},
    **{"blocks.": "block_", "attn_ln": "attention_norm", "attn.": "attention.", "ln_post": "norm"},
    **{"mlp_ln": "feed_forward_norm", "mlp.0": "expand", "mlp.2": "contract", "ln.": "norm."},
}
_HUGGING_FACE = {
    **_STEM,
    **{"embed_tokens": "tokens", "embed_positions": "positions"},
    **{"encoder_attn_layer_norm": "cross_attention_norm", "encoder_attn.": "cross_attention."},
    **{"layers.": "block_", "self_attn_layer_norm": "attention_norm", "self_attn.": "attention."},
    **{"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"},
    **{"final_layer_norm": "feed_forward_norm", "fc1": "expand", "fc2": "contract", "layer_norm": "norm"},
}
_CTRANSLATE2 = {
    **_STEM,
    **{"embeddings/": "tokens/", "position_encodings/encodings": "positions/weight"},
    **{"/attention/layer_norm": "/cross_attention_norm", "/attention/linear_2": "/cross_attention/out"},
    **{"self_attention/layer_norm": "attention_norm", "self_attention/linear_1": "attention/out"},
    **{"ffn/layer_norm": "feed_forward_norm", "ffn/linear_0": "expand", "ffn/linear_1": "contract"},
    **{"layer_norm": "norm", "layer_": "block_"},
}
_JOINED = {  # of CTranslate2's matrices, and what they hold
    "self_attention/linear_0": ("attention/query", "attention/key", "attention/value"),
    "attention/linear_0": ("cross_attention/query",),
    "attention/linear_1": ("cross_attention/key", "cross_attention/value"),
}
_OURS = re.compile(
    r"(stem/conv_[01]|block_\d+/((cross_)?attention/(query|key|value|out)|expand|contract))/(kernel|bias)"
    r"|(block_\d+/((cross_)?attention|feed_forward)_norm|norm)/(gamma|beta)"
    r"|(tokens|positions)/embeddings"
)
_ENCODER_WEIGHTS, _ENCODER_BLOCK_WEIGHTS = 6, 15  # beside the blocks, and in each of them
_DECODER_WEIGHTS, _DECODER_BLOCK_WEIGHTS = 4, 24


class WeightsError(ValueError):
    """One line: which file, what is wrong with it."""


def read_whisper(path: Path | str) -> dict[str, np.ndarray]:
    """The float32 weights of a whole Whisper, under the names that they have in a bundle.

    Its encoder is two of ours: in 8 bits the first has to stay in float32 (training/export.py).
    Raises WeightsError where the file is no Whisper model in one of the three formats.
    """
    path = Path(path)
    try:
        if zipfile.is_zipfile(path):
            theirs, prefixes, names = _read_openai(path), ("encoder.", "decoder."), _OPENAI
        elif path.suffix == ".safetensors":
            theirs, prefixes, names = load_file(path), ("model.encoder.", "model.decoder."), _HUGGING_FACE
        else:
            theirs = _split_projections(_read_ctranslate2(path))
            prefixes, names = ("encoder/", "decoder/"), _CTRANSLATE2
        encoder, decoder = (_renamed(theirs, prefix, names) for prefix in prefixes)
        encoder.pop("positions/embeddings", None)  # sinusoids, which are computed
        _check(encoder, "encoder", _ENCODER_WEIGHTS, _ENCODER_BLOCK_WEIGHTS)
        _check(decoder, "decoder", _DECODER_WEIGHTS, _DECODER_BLOCK_WEIGHTS)
    except OSError as error:
        raise WeightsError(f"{path}: {reason(error)}") from None
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except Exception as error:  # a broken pickle can raise anything
        message = " ".join(str(error).split())
        raise WeightsError(f"{path}: no Whisper model in a known format ({message})") from error
    weights = _in_halves(encoder)
    for name, value in decoder.items():
        weights["decoder/" + re.sub(r"^(block_\d+/)attention", r"\1self_attention", name)] = value
    return weights


def description(weights: dict[str, np.ndarray]) -> dict:
    """model.json of these weights: features, encoders and decoder."""
    vocabulary, width = weights["decoder/tokens/embeddings"].shape
    stack = {"type": "transformer", "width": width, "heads": width // HEAD_WIDTH}
    first, second, decoder = (_blocks(weights, name) for name in ("encoder_0/", "encoder_1/", "decoder/"))
    return {
        "features": {"mels": weights["encoder_0/stem/conv_0/kernel"].shape[1], "scale": "whisper"},
        "encoders": [
            {**stack, "layers": first, "subsampling": 2, "final_norm": False},
            {**stack, "layers": second, "subsampling": 1, "stem": False},
        ],
        "ctc": False,
        "decoder": {**stack, "layers": decoder, "vocabulary": vocabulary},
        "step_seconds": 2 * FRAME_SECONDS,
        "silence_seconds": SILENCE_SECONDS,
    }


def read_vocabulary(path: Path, size: int, language: str = "en") -> tuple[Vocabulary, list[int]]:
    """The text tokens of a Whisper model, and the model's ids of them, of the end and of the marks.

    Where a file does not name the marks, they are at the same ids in all models of a size.

    Args:
      path: CTranslate2's vocabulary.json or .txt, Hugging Face's vocab.json or tokenizer.json, or OpenAI's
        .tiktoken.
      size: number of the model's ids.
      language: that is spoken.

    Raises WeightsError for another file, or a language that the model does not know.
    """
    try:
        names = _token_names(path)
        end = names.index("<|endoftext|>") if "<|endoftext|>" in names else len(names)
        tokens = tuple(bytes(CHARACTER_BYTES[character] for character in name) for name in names[:end])
        no_times, transcribe = size - TIMES - 1, size - TIMES - 5
        if (
            no_times - end - 7 not in LANGUAGES
        ):  # beside them, seven tokens from the end of a text to `no_times`
            raise ValueError(f"has {end} tokens of text, which do not fit the model's {size} in all")
        marks = {"<|startoftranscript|>": end + 1}
        if size != ENGLISH_ONLY_SIZE:
            known = {f"<|{language}|>": end + 2} if language == "en" else {}
            spoken = known or {name: id for id, name in enumerate(names) if name == f"<|{language}|>"}
            if not spoken:
                raise ValueError(f"has no language {language!r}")
            marks |= {**spoken, "<|transcribe|>": transcribe}
        elif language != "en":
            raise ValueError("is of a model for English only")
        marks["<|notimestamps|>"] = no_times
        return Vocabulary(tokens, tuple(marks)), [*range(end + 1), *marks.values()]
    except OSError as error:
        raise WeightsError(f"{path}: {reason(error)}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path}: {error}: it must be the vocabulary of this Whisper") from None


def _token_names(path: Path) -> list[str]:
    """The tokens of a vocabulary file in the order of their ids, as printable characters."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        return text.split("\n")
    if path.suffix == ".tiktoken":
        names = {byte: name for name, byte in CHARACTER_BYTES.items()}
        tokens = [base64.b64decode(line.split()[0]) for line in text.splitlines() if line]
        return ["".join(names[byte] for byte in token) for token in tokens]
    content = json.loads(text)
    if isinstance(content, list):
        return content
    ids = content
    if path.name == "tokenizer.json":
        ids = content["model"]["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}
    if sorted(ids.values()) != list(range(len(ids))):
        raise ValueError(f"the ids of its {len(ids)} tokens are not 0 to {len(ids) - 1}")
    return sorted(ids, key=ids.get)


def frequent_tokens(vocabulary: Vocabulary, lines: Iterable[str], count: int) -> list[int]:
    """Ids of the most frequent tokens of texts.

    Each line counts as it is and with capitals, since a text in lower case lacks those of names.
    """
    tokens: Counter[int] = Counter()
    for line in lines:
        for written in {line, capwords(line)}:
            tokens.update(vocabulary.encode(" " + written))
    if not tokens:
        raise WeightsError("--texts: no text in these files")
    return [id for id, _ in tokens.most_common(count)]


def _lines(paths: Iterable[Path]) -> Iterator[str]:
    """Lines of text files, and the texts of manifests."""
    for path in paths:
        if manifest_kind(path) in MANIFESTS:
            yield from (entry.written or entry.text for entry in read_manifest(path))
            continue
        try:
            with open_file(path) as file:
                yield from (line.strip() for line in file)
        except (UnicodeDecodeError, *READ_ERRORS) as error:
            raise WeightsError(f"{path}: {reason(error)}") from None


def _renamed(theirs: dict[str, np.ndarray], prefix: str, names: dict[str, str]) -> dict[str, np.ndarray]:
    """From one of the three naming schemes to ours, with kernels in Keras' order."""
    ours: dict[str, np.ndarray] = {}
    for name, value in theirs.items():
        if not name.startswith(prefix):
            continue
        name = name.removeprefix(prefix)
        for their_part, our_part in names.items():
            name = name.replace(their_part, our_part)
        name, _, kind = name.replace(".", "/").rpartition("/")
        is_embedding = name in ("tokens", "positions")
        if kind == "weight":
            kind = "embeddings" if is_embedding else "gamma" if name.endswith("norm") else "kernel"
        elif kind == "bias" and name.endswith("norm"):
            kind = "beta"
        if _OURS.fullmatch(f"{name}/{kind}"):
            # Kernels: [out, in(, time)] → [(time,) in, out]
            ours[f"{name}/{kind}"] = np.array(value if is_embedding else value.T, "float32", order="C")
    return ours


def _blocks(weights: Iterable[str], prefix: str = "") -> int:
    """Number of blocks in a stack."""
    return sum(name.startswith(prefix) and name.endswith("expand/kernel") for name in weights)


def _check(weights: dict[str, np.ndarray], what: str, others: int, each: int) -> None:
    """Raises WeightsError unless all weights of a stack are there: some in each block, and some others."""
    expected = others + each * _blocks(weights)
    if not _blocks(weights) or len(weights) != expected:
        raise WeightsError(f"{len(weights)} of {expected} {what} weights found: no Whisper model")


def _in_halves(encoder: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An encoder's weights under the names of two: the stem with half of the blocks, and the rest."""
    half = _blocks(encoder) // 2
    halves = {}
    for name, value in encoder.items():
        if match := re.fullmatch(r"block_(\d+)/(.*)", name):
            block = int(match.group(1))
            second = block >= half
            name = f"block_{block - half if second else block}/{match.group(2)}"
        else:
            second = name.startswith("norm/")
        halves[f"encoder_{int(second)}/{name}"] = value
    return halves


def _read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """Variables of a CTranslate2 binary (format 6): names, shapes and little-endian arrays in turn."""
    types = (np.float32, np.int8, np.int16, np.int32, np.float16)
    data = memoryview(path.read_bytes())
    position = 0

    def number(format):
        nonlocal position
        (value,) = struct.unpack_from("<" + format, data, position)
        position += struct.calcsize(format)
        return value

    def text():
        nonlocal position
        length = number("H")
        value = bytes(data[position : position + length - 1]).decode()  # the last byte is a zero
        position += length
        return value

    version = number("I")
    if version != 6:
        raise WeightsError(f"CTranslate2 format {version}; only 6 is known")
    text()  # the model's kind
    number("I")  # its revision
    variables = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        dtype = np.dtype(types[number("B")])
        size = number("I")
        variables[name] = np.frombuffer(data[position : position + size], dtype).reshape(shape)
        position += size
    if any(value.dtype.kind == "i" and value.ndim > 1 for value in variables.values()):
        raise WeightsError("quantised to integers; convert the model to float16 or float32")
    return variables


def _split_projections(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """CTranslate2 joins projections of the same input in one matrix: split them under our names."""
    split = dict(variables)
    for name, value in variables.items():
        for pattern, parts in _JOINED.items():
            if match := re.fullmatch(rf"(.*/layer_\d+/){pattern}/(weight|bias)", name):
                for own, part in zip(parts, np.split(value, len(parts)), strict=True):
                    if not (own.endswith("key") and match.group(2) == "bias"):
                        split[f"{match.group(1)}{own}/{match.group(2)}"] = part
    return split


class _TensorIndex(pickle.Unpickler):
    """Reads the index of a PyTorch archive: only tensors, storages, numbers and dictionaries are allowed."""

    def __init__(self, data: bytes, read_storage):
        super().__init__(io.BytesIO(data))
        self.read_storage = read_storage

    def find_class(self, module, name):
        dtypes = {"FloatStorage": np.float32, "HalfStorage": np.float16, "LongStorage": np.int64}
        if module == "torch" and name in dtypes:
            return np.dtype(dtypes[name])
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"refused: {module}.{name} is no part of a list of tensors")

    def persistent_load(self, persistent_id):
        _, dtype, key, _, _ = persistent_id
        return self.read_storage(key, dtype)


def _rebuild_tensor(storage, offset, shape, strides, *_):
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if min(offset, *shape, *strides) < 0 or last >= len(storage):  # as_strided would read beyond it
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    size = storage.itemsize
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, [stride * size for stride in strides])


def _read_openai(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        index = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
        if index is None:
            raise WeightsError("a zip without data.pkl is no PyTorch file")
        folder = index[: -len("data.pkl")]

        def read_storage(key, dtype):
            return np.frombuffer(archive.read(f"{folder}data/{key}"), dtype)

        content = _TensorIndex(archive.read(index), read_storage).load()
    return content["model_state_dict"]


def main(options: argparse.Namespace) -> None:
    """`hark import-whisper`."""
    if bool(options.tokens) != bool(options.texts):
        raise WeightsError("--tokens and --texts go together: give both")
    weights = read_whisper(options.file)
    path = options.vocabulary or _vocabulary_beside(options.file)
    embeddings = weights["decoder/tokens/embeddings"]
    vocabulary, ids = read_vocabulary(path, len(embeddings), options.language)
    if options.tokens:
        vocabulary, kept = vocabulary.restricted(
            frequent_tokens(vocabulary, _lines(options.texts), options.tokens)
        )
        ids = [ids[id] for id in kept]
    weights["decoder/tokens/embeddings"] = embeddings[ids]
    halved = {name: value.astype("float16") for name, value in weights.items()}
    tokenizer = Tokenizer.characters(options.language)
    write_bundle(options.output, description(weights), tokenizer, halved, vocabulary)
    print(f"{options.output}: {vocabulary.size} tokens", file=sys.stderr)


def _vocabulary_beside(model: Path) -> Path:
    for name in VOCABULARY_FILES:
        if (model.parent / name).exists():
            return model.parent / name
    raise WeightsError(f"{model}: none of {', '.join(VOCABULARY_FILES)} beside it: name it by --vocabulary")
