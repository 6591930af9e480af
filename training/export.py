"""Write a bundle's engine.onnx, samples → log-probs: python -m training.export BUNDLE [--int8]

The graph reads its weights from the bundle's weights.safetensors (graph_weights.py). It is traced by
TensorFlow and converted by tf2onnx. A loop over time would become a slow ONNX loop, so the LSTMs are traced
as TensorFlow's BlockLSTMV2, an operator of equal meaning, which is then written as ONNX's own LSTM. Likewise
an utterance is reversed by one operator, where gathering took a third of the time of a small model.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("export")


if __name__ == "__main__":
    from training.commands import run_as_module

    run_as_module("export")

import argparse
import contextlib
import copy
import os
import sys
import tempfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"  # only TensorFlow's graphs can be converted
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from asr.bundle import Bundle, weights_digest, weights_path
from asr.encoders import recurrent
from asr.engine import GRAPH, WEIGHTS_DIGEST
from asr.model import CTCModel
from training.graph_weights import refer_to_weights, to_onnx_gates

OPSET = 17


def export(bundle: Bundle, int8: bool = False) -> Path:
    """Writes the graph into the bundle and returns its path.

    Args:
      int8: matrix products and LSTMs in 8 bits (activations are quantised as they come), which is faster;
        else float32. Two things stay in float32 in any case, since 8 bits cannot hold their range: the
        log-mel, and the first of several encoders, which in Whisper has a few activations far larger than
        all others (in 8 bits it cost 0.4 points of WER on dev-read and 1.0 on dev-other).
    """
    model = bundle.build_model()

    def run(inputs, lengths):
        outputs = model.log_probs({"inputs": inputs, "lengths": lengths})
        return {"log_probs": outputs["log_probs"], "steps": outputs["lengths"]}

    signature = [
        tf.TensorSpec((None, None), tf.float32, "inputs"),
        tf.TensorSpec((None,), tf.int32, "lengths"),
    ]
    with _recurrences_as_operators():
        whole, _ = tf2onnx.convert.from_function(
            tf.function(run, input_signature=signature),
            input_signature=signature,
            opset=OPSET,
            custom_op_handlers={"BlockLSTMV2": (_write_lstm, [])},
        )
    graph = _in_8_bits(whole, model) if int8 else copy.deepcopy(whole)
    weights = weights_path(bundle.directory)
    refer_to_weights(graph, whole, weights)
    onnx.helper.set_model_props(graph, {WEIGHTS_DIGEST: weights_digest(weights)})
    path = bundle.directory / GRAPH
    onnx.save(graph, path)
    return path


def _in_8_bits(whole: onnx.ModelProto, model: CTCModel) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(whole, source)
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "LSTM"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"WeightSymmetric": True},
            nodes_to_exclude=[node.name for node in whole.graph.node if _has_wide_range(node.name, model)],
        )
        return onnx.load(target)


def _has_wide_range(node: str, model: CTCModel) -> bool:
    """Whether 8 bits would not do for what a node of the graph computes."""
    first, *others = model.encoders
    return model.features.name in node or (bool(others) and first.name in node)


@contextlib.contextmanager
def _recurrences_as_operators():
    """While tracing, each LSTM becomes a single operator, and each reversal."""
    originals = recurrent._run_lstms, recurrent.reverse_valid
    recurrent._run_lstms = lambda layers, inputs: [
        _trace_lstm(*pair) for pair in zip(layers, inputs, strict=True)
    ]
    recurrent.reverse_valid = lambda x, lengths: tf.reverse_sequence(x, lengths, seq_axis=1)
    try:
        yield
    finally:
        recurrent._run_lstms, recurrent.reverse_valid = originals


def _trace_lstm(layer, x):
    """x [batch, steps, features] through a Keras LSTM, as BlockLSTMV2: [batch, steps, width]."""
    x = tf.transpose(x, (1, 0, 2))
    batch, width = tf.shape(x)[1], layer.units
    zeros = tf.zeros((batch, width))
    weights = tf.concat([layer.cell.kernel.value, layer.cell.recurrent_kernel.value], axis=0)
    peephole = tf.zeros((width,))
    operator = tf.raw_ops.BlockLSTMV2(
        seq_len_max=tf.cast(tf.shape(x)[0], tf.int64),
        x=x,
        cs_prev=zeros,
        h_prev=zeros,
        w=weights,
        wci=peephole,
        wcf=peephole,
        wco=peephole,
        b=layer.cell.bias.value,
        cell_clip=-1,
        use_peephole=False,
    )
    return tf.transpose(operator.h, (1, 0, 2))


def _write_lstm(context, node, name, _):
    """tf2onnx's handler: BlockLSTMV2 (with Keras' order of gates, see `_trace_lstm`) → Squeeze(LSTM)."""
    weights = node.inputs[4].get_tensor_value(as_list=False)  # [features + width, 4 × width]
    bias = node.inputs[8].get_tensor_value(as_list=False)
    width = weights.shape[1] // 4

    def reordered(gates):  # [..., 4 × width] in Keras' order → [1, 4 × width, ...] in ONNX's
        return to_onnx_gates(gates).T[None].astype("float32")

    constants = {
        "W": reordered(weights[:-width]),
        "R": reordered(weights[-width:]),
        "B": np.concatenate([reordered(bias), np.zeros((1, 4 * width), "float32")], axis=1),
        "axes": np.array([1], dtype="int64"),
    }
    names = {key: context.make_const(f"{name}_{key}", value).output[0] for key, value in constants.items()}
    x, output = node.input[1], node.output[6]
    users = context.find_output_consumers(output)
    lstm = context.make_node(
        "LSTM", [x, names["W"], names["R"], names["B"]], attr={"hidden_size": width}, name=f"{name}_lstm"
    )
    squeezed = context.make_node("Squeeze", [lstm.output[0], names["axes"]], name=f"{name}_squeeze")
    for user in users:
        context.replace_input(user, output, squeezed.output[0])
    context.remove_node(node.name)


def main(options: argparse.Namespace) -> None:
    """`hark export`."""
    path = export(Bundle.load(options.bundle), options.int8)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
