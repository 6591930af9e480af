"""Weights of Whisper's encoder, from whatever file they lie in: python -m training.import_whisper FILE OUTPUT

Reads OpenAI's .pt, Hugging Face's .safetensors and CTranslate2's model.bin, and writes safetensors with the
names of our `TransformerEncoder`. Nothing in a file is executed: a .pt is a zip of plain arrays and a pickled
index, of which only the few instructions that describe tensors are obeyed.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("import-whisper")

import argparse
import io
import pickle
import re
import struct
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from asr.encoders import TransformerEncoder
from asr.files import write_whole

HEAD_WIDTH = 64  # of every Whisper model

# Our names ← the last parts of theirs, per block.
_BLOCK_PARTS = {
    "attention_norm": ("attn_ln", "self_attn_layer_norm", "self_attention/layer_norm"),
    "attention/query": ("attn.query", "self_attn.q_proj", None),
    "attention/key": ("attn.key", "self_attn.k_proj", None),
    "attention/value": ("attn.value", "self_attn.v_proj", None),
    "attention/out": ("attn.out", "self_attn.out_proj", "self_attention/linear_1"),
    "feed_forward_norm": ("mlp_ln", "final_layer_norm", "ffn/layer_norm"),
    "expand": ("mlp.0", "fc1", "ffn/linear_0"),
    "contract": ("mlp.2", "fc2", "ffn/linear_1"),
}
_OPENAI, _HUGGING_FACE, _CTRANSLATE2 = range(3)


class WeightsError(ValueError):
    """One line: which file, what is wrong with it."""


def read_whisper(path: Path | str) -> dict[str, np.ndarray]:
    """The encoder's float32 weights under the variable paths of `TransformerEncoder`, less its own name.

    Raises WeightsError where the file is no Whisper model in one of the three formats.
    """
    path = Path(path)
    try:
        if zipfile.is_zipfile(path):
            return _rename(_read_openai(path), "encoder.", ".blocks", _OPENAI)
        if path.suffix == ".safetensors":
            return _rename(load_file(path), "model.encoder.", ".layers", _HUGGING_FACE)
        return _rename(_split_projections(_read_ctranslate2(path)), "encoder/", "layer_", _CTRANSLATE2)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from None
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except Exception as error:  # a broken pickle can raise anything
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path}: no Whisper model in a known format ({reason})") from error


def dimensions(weights: dict[str, np.ndarray]) -> dict:
    """Options of the `TransformerEncoder` that these weights fit."""
    width = weights["norm/gamma"].shape[0]
    layers = 1 + max(int(m.group(1)) for name in weights if (m := re.match(r"block_(\d+)/", name)))
    return {"width": width, "layers": layers, "heads": width // HEAD_WIDTH, "subsampling": 2}


def assign_whisper(model, weights: dict[str, np.ndarray]) -> None:
    """Sets the Transformer encoders of a `CTCModel`, block after block, also where they share it out."""
    block = 0
    for encoder in model.encoders:
        if not isinstance(encoder, TransformerEncoder):
            continue
        for variable in encoder.variables:
            name = variable.path.split(f"{encoder.name}/", 1)[1]
            if match := re.match(r"block_(\d+)/(.*)", name):
                name = f"block_{block + int(match.group(1))}/{match.group(2)}"
            if name not in weights or weights[name].shape != tuple(variable.shape):
                raise WeightsError(
                    f"Whisper's weights do not fit this encoder: {name} {tuple(variable.shape)}"
                )
            variable.assign(weights[name])
        block += encoder.layers


def _rename(theirs: dict[str, np.ndarray], prefix: str, blocks: str, dialect: int) -> dict[str, np.ndarray]:
    """From one of the three naming schemes to ours, with kernels in Keras' order."""
    separator = "/" if dialect == _CTRANSLATE2 else "."
    layer_norm = ("gamma", "beta") if dialect == _CTRANSLATE2 else ("weight", "bias")
    ours: dict[str, np.ndarray] = {}

    def take(name, source, kernel="kernel"):
        for suffix, own in (("weight", kernel), ("bias", "bias")):
            value = theirs.get(f"{prefix}{source}{separator}{suffix}")
            if value is not None:
                ours[f"{name}/{own}"] = np.ascontiguousarray(value.T)  # [out, in(, time)] → [(time,) in, out]

    def take_norm(name, source):
        for suffix, own in zip(layer_norm, ("gamma", "beta"), strict=True):
            ours[f"{name}/{own}"] = theirs[f"{prefix}{source}{separator}{suffix}"]

    for i in range(2):
        take(f"stem/conv_{i}", f"conv{i + 1}")
    count = 0
    block_name = f"{blocks.lstrip('.')}{separator}" if dialect != _CTRANSLATE2 else blocks
    while any(name.startswith(f"{prefix}{block_name}{count}{separator}") for name in theirs):
        for own, sources in _BLOCK_PARTS.items():
            source = sources[dialect] or own  # CTranslate2's joint projection was split under our names
            full = f"{block_name}{count}{separator}{source}"
            (take_norm if own.endswith("norm") else take)(f"block_{count}/{own}", full)
        count += 1
    take_norm("norm", {_OPENAI: "ln_post"}.get(dialect, "layer_norm"))
    expected = 4 + 15 * count + 2
    if not count or len(ours) != expected:
        raise WeightsError(f"{len(ours)} of {expected} encoder weights found: no Whisper model")
    return {name: np.asarray(value, dtype="float32") for name, value in ours.items()}


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
    """CTranslate2 joins query, key and value in one matrix: split them under our names."""
    split = dict(variables)
    for name, value in variables.items():
        match = re.fullmatch(r"(encoder/layer_\d+)/self_attention/linear_0/(weight|bias)", name)
        if match:
            for own, part in zip(("query", "key", "value"), np.split(value, 3), strict=True):
                if (own, match.group(2)) != ("key", "bias"):
                    split[f"{match.group(1)}/attention/{own}/{match.group(2)}"] = part
    return split


class _TensorIndex(pickle.Unpickler):
    """Reads the index of a PyTorch archive: only tensors, storages, numbers and dictionaries are admitted."""

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
    weights = read_whisper(options.file)
    options.encoder.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.encoder, save(weights))
    print(f"{options.encoder}: {dimensions(weights)}", file=sys.stderr)
