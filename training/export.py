"""Write a bundle's graphs for ONNX Runtime: python -m training.export BUNDLE [--int8]

engine.onnx computes log-probs, and what the decoder attends to, from samples; decoder.onnx is one step of the
attention decoder (training/decoder_graph.py). The graphs hold no weights: each tensor of the bundle's
weights.safetensors is external data to them (file, offset, length). Other forms (32 bits, another order) are
computed from there by the graphs; ONNX Runtime does that once, when it loads them.

TensorFlow traces the engine with the weights as inputs; tf2onnx converts it. A loop over time would become a
slow ONNX loop, so the LSTMs are traced as TensorFlow's BlockLSTMV2 and written as ONNX's own LSTM. Likewise
one operator reverses an utterance, where gathering took a third of the time of a small model.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("export")

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"  # only TensorFlow's graphs can be converted
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from onnx import TensorProto, helper, numpy_helper

from asr.bundle import SCALE, Bundle, store_in_8_bits, stored_variables, weights_digest, weights_path
from asr.encoders import recurrent
from asr.engine import DECODER_GRAPH, ENGINE_GRAPH, WEIGHTS_DIGEST, encoder_outputs
from asr.files import write_whole
from asr.model import SpeechModel
from training.decoder_graph import MICROSOFT, GraphWriter, decoder_graph

OPSET = 17


def export(bundle: Bundle, int8: bool = False) -> list[Path]:
    """Writes the graphs into the bundle and returns their paths.

    Args:
      int8: weights, matrix products and LSTMs in 8 bits, which is smaller and faster; else float32. Two
        things are computed in float32, since 8 bits cannot hold their range: the log-mel, and the first of
        several encoders, which in Whisper has a few very large activations (in 8 bits it cost 0.4 points of
        WER on dev-read, 1.0 on dev-other).
    """
    if int8:
        store_in_8_bits(bundle)
    model = bundle.build_model()
    path = weights_path(bundle.directory)
    tensors = _stored_tensors(path)
    names = {f"weight_{i}": name for i, name in enumerate(stored_variables(model))}
    engine = _trace(model, dict(zip(names, stored_variables(model).values(), strict=True)))
    if int8:
        _compute_in_8_bits(engine.graph, model, names, tensors)
        engine.opset_import.add(domain=MICROSOFT, version=1)
    _read_from_file(engine.graph, names, tensors)
    graphs = {ENGINE_GRAPH: engine}
    if model.decoder is not None:
        graphs[DECODER_GRAPH] = decoder_graph(model.decoder, tensors, int8, OPSET)
    for name, graph in graphs.items():
        helper.set_model_props(graph, {WEIGHTS_DIGEST: weights_digest(path)})
        write_whole(bundle.directory / name, graph.SerializeToString())
    return [bundle.directory / name for name in graphs]


def _trace(model: SpeechModel, weights: dict[str, keras.Variable]) -> onnx.ModelProto:
    """The graph, with an input for each weight besides "inputs" and "lengths"."""

    def run(inputs, lengths, *tensors):
        with keras.StatelessScope(state_mapping=list(zip(weights.values(), tensors, strict=True))):
            return encoder_outputs(model, {"inputs": inputs, "lengths": lengths})

    signature = [
        tf.TensorSpec((None, None), tf.float32, "inputs"),
        tf.TensorSpec((None,), tf.int32, "lengths"),
        *(tf.TensorSpec(variable.shape, tf.float32, name) for name, variable in weights.items()),
    ]
    with _recurrences_as_operators():
        graph, _ = tf2onnx.convert.from_function(
            tf.function(run, input_signature=signature),
            input_signature=signature,
            opset=OPSET,
            custom_op_handlers={"BlockLSTMV2": (_write_lstm, [])},
        )
    return graph


def _compute_in_8_bits(
    graph: onnx.GraphProto, model: SpeechModel, weights: Mapping[str, str], tensors: Mapping[str, TensorProto]
) -> None:
    """Replaces the products with weights, and the LSTMs, by operators on 8-bit numbers, in place.

    Each column of a weight has its own scale; activations are quantised when the graph runs.
    """
    matrices = set(weights)  # and what is computed from weights and constants alone
    constants = {*weights, *(tensor.name for tensor in graph.initializer)}
    nodes: list[onnx.NodeProto] = []
    quantised: dict[str, list[str]] = {}  # activations: codes, scale and zero point

    def constant(name: str, value) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"8_bits_{name}"))
        return f"8_bits_{name}"

    def add(operator: str, inputs: list[str], outputs: int = 1, **attributes) -> list[str]:
        names = [f"8_bits_{len(nodes)}_{i}" for i in range(outputs)]
        nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names

    def codes_and_scale(matrix: str) -> tuple[str, str]:
        if stored := tensors.get(weights.get(matrix, matrix) + SCALE):  # the codes are in the file
            [scale] = add("Cast", [stored.name], to=TensorProto.FLOAT)
            return weights[matrix], add("Reshape", [scale, one_axis])[0]
        most = add("ReduceMax", add("Abs", [matrix]), axes=[-2], keepdims=0)
        [scale] = add("Div", [*add("Max", [*most, smallest]), largest])
        # QuantizeLinear would do the same, at a tenth of the speed where columns have scales of their own.
        [codes] = add("Cast", add("Round", add("Div", [matrix, scale])), to=TensorProto.INT8)
        return codes, scale

    largest, smallest = constant("largest", np.float32(127)), constant("smallest", np.float32(1e-8))
    one_axis = constant("one_axis", np.array([-1]))
    for node in graph.node:
        if node.input and constants.issuperset(node.input):
            constants.update(node.output)
            matrices.update(node.output if matrices.intersection(node.input) else [])
        if _has_wide_range(node.name, model):
            nodes.append(node)
        elif node.op_type == "LSTM":
            x, *kernels, bias = node.input
            turned = [add("Transpose", [kernel], perm=(0, 2, 1))[0] for kernel in kernels]
            kernel, recurrent_kernel = map(codes_and_scale, turned)
            zeros = constant(f"{node.name}_zeros", np.zeros((1, 4 * node.attribute[0].i), "int8"))
            inputs = [x, kernel[0], recurrent_kernel[0], bias, "", "", "", ""]
            inputs += [kernel[1], zeros, recurrent_kernel[1], zeros]
            lstm = helper.make_node("DynamicQuantizeLSTM", inputs, node.output, domain=MICROSOFT)
            lstm.attribute.extend(node.attribute)
            nodes.append(lstm)
        elif node.op_type == "MatMul" and node.input[1] in matrices:
            x, matrix = node.input
            if x not in quantised:
                quantised[x] = add("DynamicQuantizeLinear", [x], outputs=3)
            (x_codes, x_scale, x_zero), (codes, scale) = quantised[x], codes_and_scale(matrix)
            sums = add("Cast", add("MatMulInteger", [x_codes, codes, x_zero]), to=TensorProto.FLOAT)
            nodes.append(helper.make_node("Mul", [*sums, *add("Mul", [x_scale, scale])], node.output))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _has_wide_range(node: str, model: SpeechModel) -> bool:
    """Whether 8 bits would not do for what a node of the graph computes."""
    first, *others = model.encoders
    return model.features.name in node or (bool(others) and first.name in node)


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


def _read_from_file(
    graph: onnx.GraphProto, weights: Mapping[str, str], tensors: Mapping[str, TensorProto]
) -> None:
    """Turns the weights from inputs of the graph into external data in float32, in place."""
    used = {name for node in graph.node for name in node.input}
    file = GraphWriter(tensors)
    for name in used.intersection(weights):
        file.name(file.weight(weights[name]), name)
    for name in used.intersection(tensors):
        file.stored(name)
    nodes = [*file.nodes, *graph.node]
    inputs = [value for value in graph.input if value.name not in weights]
    del graph.input[:], graph.node[:]
    graph.input.extend(inputs)
    graph.node.extend(nodes)
    graph.initializer.extend(file.initializers.values())


@contextlib.contextmanager
def _recurrences_as_operators():
    """While tracing, each LSTM becomes a single operator, and each reversal."""
    originals = recurrent._run_lstms, recurrent.reverse_valid
    recurrent._run_lstms = lambda layers, inputs: list(map(_trace_lstm, layers, inputs))
    recurrent.reverse_valid = lambda x, lengths: tf.reverse_sequence(x, lengths, seq_axis=1)
    try:
        yield
    finally:
        recurrent._run_lstms, recurrent.reverse_valid = originals


def _trace_lstm(layer, x):
    """x [batch, steps, features] through a Keras LSTM, as BlockLSTMV2: [batch, steps, width].

    The gates are put into ONNX's order, since the operator is not run but written by `_write_lstm`.
    """
    x = tf.transpose(x, (1, 0, 2))
    batch, width = tf.shape(x)[1], layer.units

    def in_onnx_order(weights):  # [..., 4 × width]
        input_gate, forget_gate, cell, output_gate = tf.split(weights, 4, axis=-1)
        return tf.concat([input_gate, output_gate, forget_gate, cell], axis=-1)

    cell = layer.cell
    operator = tf.raw_ops.BlockLSTMV2(
        seq_len_max=tf.cast(tf.shape(x)[0], tf.int64),
        x=x,
        w=in_onnx_order(tf.concat([cell.kernel.value, cell.recurrent_kernel.value], axis=0)),
        b=in_onnx_order(cell.bias.value),
        cell_clip=-1,
        use_peephole=False,
        **dict.fromkeys(("cs_prev", "h_prev"), tf.zeros((batch, width))),
        **dict.fromkeys(("wci", "wcf", "wco"), tf.zeros((width,))),
    )
    return tf.transpose(operator.h, (1, 0, 2))


def _write_lstm(context, node, name, _):
    """tf2onnx's handler: BlockLSTMV2 with ONNX's order of gates (see `_trace_lstm`) → Squeeze(LSTM)."""
    rows, columns = context.get_shape(node.input[4])  # features + width, 4 × width
    width = columns // 4
    x, weights, bias, output = node.input[1], node.input[4], node.input[8], node.output[6]

    def make(operator, inputs, outputs=1, **attributes):
        made = context.make_node(operator, inputs, output_count=outputs, attr=attributes)
        return made.output if outputs > 1 else made.output[0]

    def constant(key, value):
        return context.make_const(f"{name}_{key}", value).output[0]

    directions = constant("directions", np.array([0]))
    sizes = constant("sizes", np.array([rows - width, width]))
    no_bias = constant("no_bias", np.zeros(4 * width, "float32"))
    turned = make("Transpose", [weights], perm=[1, 0])
    parts = make("Split", [turned, sizes], outputs=2, axis=1)
    kernels = [make("Unsqueeze", [part, directions]) for part in parts]
    biases = make("Unsqueeze", [make("Concat", [bias, no_bias], axis=0), directions])
    users = context.find_output_consumers(output)
    lstm = context.make_node("LSTM", [x, *kernels, biases], attr={"hidden_size": width}, name=f"{name}_lstm")
    squeezed = make("Squeeze", [lstm.output[0], constant("axis", np.array([1]))])
    for user in users:
        context.replace_input(user, output, squeezed)
    context.remove_node(node.name)


def main(options: argparse.Namespace) -> None:
    """`hark export`."""
    for path in export(Bundle.load(options.bundle), options.int8):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
