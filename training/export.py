"""Write a bundle's graphs for ONNX Runtime: python -m training.export BUNDLE [--int8]

engine.onnx computes log-probs, and what the decoder attends to, from samples (training/encoder_graph.py);
decoder.onnx is one step of the attention decoder (training/decoder_graph.py). The graphs hold no weights:
each tensor of the bundle's weights.safetensors is external data to them (file, offset, length). Other forms
(32 bits, another order) are computed from there by the graphs; ONNX Runtime does that once, at loading.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("export")

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from onnx import TensorProto, helper

from asr.bundle import Bundle, store_in_8_bits, weights_digest, weights_path
from asr.engine import DECODER_GRAPH, ENGINE_GRAPH, WEIGHTS_DIGEST
from asr.files import write_whole
from training.decoder_graph import decoder_graph
from training.encoder_graph import encoder_graph


def export(bundle: Bundle, int8: bool = False) -> list[Path]:
    """Writes the graphs into the bundle and returns their paths.

    Args:
      int8: weights, matrix products and LSTMs in 8 bits, which is smaller and faster; else float32. The
        log-mel, convolutions, attention and other recurrent layers are computed in float32.
    """
    if int8:
        store_in_8_bits(bundle)
    model = bundle.build_model()
    path = weights_path(bundle.directory)
    tensors = _stored_tensors(path)
    graphs = {ENGINE_GRAPH: encoder_graph(model, tensors, int8)}
    if model.decoder is not None:
        graphs[DECODER_GRAPH] = decoder_graph(model.decoder, tensors, int8)
    for name, graph in graphs.items():
        helper.set_model_props(graph, {WEIGHTS_DIGEST: weights_digest(path)})
        write_whole(bundle.directory / name, graph.SerializeToString())
    return [bundle.directory / name for name in graphs]


def _stored_tensors(path: Path) -> dict[str, TensorProto]:
    """The tensors of a safetensors file by name, as external data of a graph beside it."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(size))
    types = {"F16": TensorProto.FLOAT16, "F32": TensorProto.FLOAT, "I8": TensorProto.INT8}
    tensors = {}
    for name, entry in entries.items():
        first, end = entry["data_offsets"]
        tensor = TensorProto(name=name, dims=entry["shape"], data_type=types[entry["dtype"]])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": path.name, "offset": 8 + size + first, "length": end - first}.items():
            tensor.external_data.add(key=key, value=str(value))
        tensors[name] = tensor
    return tensors


def main(options: argparse.Namespace) -> None:
    """`hark export`."""
    for path in export(Bundle.load(options.bundle), options.int8):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
