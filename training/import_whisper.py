"""The encoder's weights from a file of a Whisper model: python -m training.import_whisper FILE OUTPUT

Reads OpenAI's .pt, Hugging Face's .safetensors and CTranslate2's model.bin, and writes safetensors with the
names of our `TransformerEncoder`. Nothing in a file is executed: a .pt is a zip of plain arrays and a pickled
index, of which only the few instructions that describe tensors are run.
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
from asr.files import reason, write_whole

HEAD_WIDTH = 64  # of every Whisper model

# Parts of the names in each format, and ours; replaced in this order.
_STEM = {"conv1": "stem/conv_0", "conv2": "stem/conv_1"}
_OPENAI = {
    **_STEM,
    **{"blocks.": "block_", "attn_ln": "attention_norm", "attn.": "attention.", "ln_post": "norm"},
    **{"mlp_ln": "feed_forward_norm", "mlp.0": "expand", "mlp.2": "contract"},
}
_HUGGING_FACE = {
    **_STEM,
    **{"layers.": "block_", "self_attn_layer_norm": "attention_norm", "self_attn.": "attention."},
    **{"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"},
    **{"final_layer_norm": "feed_forward_norm", "fc1": "expand", "fc2": "contract", "layer_norm": "norm"},
}
_CTRANSLATE2 = {
    **_STEM,
    **{"self_attention/layer_norm": "attention_norm", "self_attention/linear_1": "attention/out"},
    **{"ffn/layer_norm": "feed_forward_norm", "ffn/linear_0": "expand", "ffn/linear_1": "contract"},
    **{"layer_norm": "norm", "layer_": "block_"},
}
_OURS = re.compile(
    r"(stem/conv_[01]|block_\d+/(attention/(query|key|value|out)|expand|contract))/(kernel|bias)"
    r"|(block_\d+/(attention|feed_forward)_norm|norm)/(gamma|beta)"
)
_STEM_AND_NORM, _BLOCK = 6, 15  # weights


class WeightsError(ValueError):
    """One line: which file, what is wrong with it."""


def read_whisper(path: Path | str) -> dict[str, np.ndarray]:
    """The encoder's float32 weights under the variable paths of `TransformerEncoder`, less its own name.

    Raises WeightsError where the file is no Whisper model in one of the three formats.
    """
    path = Path(path)
    try:
        if zipfile.is_zipfile(path):
            return _rename(_read_openai(path), "encoder.", _OPENAI)
        if path.suffix == ".safetensors":
            return _rename(load_file(path), "model.encoder.", _HUGGING_FACE)
        return _rename(_split_projections(_read_ctranslate2(path)), "encoder/", _CTRANSLATE2)
    except OSError as error:
        raise WeightsError(f"{path}: {reason(error)}") from None
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except Exception as error:  # a broken pickle can raise anything
        message = " ".join(str(error).split())
        raise WeightsError(f"{path}: no Whisper model in a known format ({message})") from error


def dimensions(weights: dict[str, np.ndarray]) -> dict:
    """Options of the `TransformerEncoder` that these weights fit."""
    width = weights["norm/gamma"].shape[0]
    layers = 1 + max(int(m.group(1)) for name in weights if (m := re.match(r"block_(\d+)/", name)))
    return {"width": width, "layers": layers, "heads": width // HEAD_WIDTH, "subsampling": 2}


def assign_whisper(model, weights: dict[str, np.ndarray]) -> None:
    """Sets the Transformer encoders of a `CTCModel`, which may have some of Whisper's blocks each."""
    block = 0
    for encoder in model.encoders:
        if not isinstance(encoder, TransformerEncoder):
            continue
        for variable in encoder.variables:
            name = variable.path.split(f"{encoder.name}/", 1)[1]
            if match := re.match(r"block_(\d+)/(.*)", name):
                name = f"block_{block + int(match.group(1))}/{match.group(2)}"
            shape = tuple(variable.shape)
            if name not in weights or weights[name].shape != shape:
                raise WeightsError(f"Whisper's weights do not fit this encoder: {name} {shape}")
            variable.assign(weights[name])
        block += len(encoder.blocks)


def _rename(theirs: dict[str, np.ndarray], prefix: str, names: dict[str, str]) -> dict[str, np.ndarray]:
    """From one of the three naming schemes to ours, with kernels in Keras' order."""
    ours: dict[str, np.ndarray] = {}
    for name, value in theirs.items():
        if not name.startswith(prefix):
            continue
        name = name.removeprefix(prefix)
        for their_part, our_part in names.items():
            name = name.replace(their_part, our_part)
        name, _, kind = name.replace(".", "/").rpartition("/")
        own_kinds = ("gamma", "beta") if name.endswith("norm") else ("kernel", "bias")
        name = f"{name}/{dict(zip(('weight', 'bias'), own_kinds, strict=True)).get(kind, kind)}"
        if _OURS.fullmatch(name):
            # [out, in(, time)] → [(time,) in, out]
            ours[name] = np.ascontiguousarray(value.T, dtype="float32")
    blocks = sum(name.endswith("expand/kernel") for name in ours)
    expected = _STEM_AND_NORM + _BLOCK * blocks
    if not blocks or len(ours) != expected:
        raise WeightsError(f"{len(ours)} of {expected} encoder weights found: no Whisper model")
    return ours


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
    weights = read_whisper(options.file)
    options.encoder.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.encoder, save(weights))
    print(f"{options.encoder}: {dimensions(weights)}", file=sys.stderr)
