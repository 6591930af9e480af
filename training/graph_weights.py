"""Let an exported graph read its weights from the bundle's weights.safetensors, with no copy of its own.

A safetensors file is a header and plain numbers, so an ONNX graph can name each tensor in it as external
data: file, offset, length. What the graph needs in another form (32 bits, another order, 8 bits) it computes
from there when ONNX Runtime loads it and folds what is constant.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

KERAS_GATES = ("input", "forget", "cell", "output")
ONNX_GATES = ("input", "output", "forget", "cell")
SMALLEST = 1024  # numbers; a constant of fewer stays in the graph


def refer_to_weights(graph: onnx.ModelProto, whole: onnx.ModelProto, path: Path) -> None:
    """Replaces, in place, a graph's constants that are weights by nodes that read them from their file.

    Args:
      graph: `whole`, or what `quantize_dynamic` made of it.
      whole: the graph with every weight in float32, as it is in the file: weights are found by their values.
      path: weights.safetensors; the graph finds it only in its own folder.
    """
    weights = _Weights(path)
    kept, nodes = [], []
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in whole.graph.initializer}
    for tensor in graph.graph.initializer:
        constant = constants.get(tensor.name.removesuffix("_quantized"))
        found = None if constant is None or constant.size < SMALLEST else weights.find(constant)
        if found is None:
            kept.append(tensor)
        else:
            nodes += (
                _in_float(*found, tensor)
                if tensor.data_type == TensorProto.FLOAT
                else _in_int8(*found, tensor)
            )
    nodes += graph.graph.node
    del graph.graph.initializer[:], graph.graph.node[:]
    graph.graph.initializer.extend(kept + weights.referred)
    graph.graph.node.extend(nodes)


class _Weights:
    """The tensors of a safetensors file, to be found by value."""

    def __init__(self, path: Path):
        self.path = path
        self.referred: list[TensorProto] = []
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        self.tensors = {}
        for name, entry in json.loads(content[8:start]).items():
            if entry.get("dtype") == "F16":
                first, end = entry["data_offsets"]
                value = np.frombuffer(content[start + first : start + end], "float16").reshape(entry["shape"])
                self.tensors[name] = (start + first, value)

    def find(self, constant: np.ndarray):
        """The weight whose values a constant has, and how to order them; None where that is not just one.

        Returns (name of an external tensor, order), where order is a permutation of axes, or "gates" for an
        LSTM's matrix [features, 4 × width] that ONNX has as [1, 4 × width, features], in its order of gates.
        """
        matches = []
        for name, (offset, value) in self.tensors.items():
            if value.size != constant.size:
                continue
            orders = {order: value.transpose(order) for order in itertools.permutations(range(value.ndim))}
            if constant.ndim == 3 and value.ndim == 2 and value.shape[1] % 4 == 0:
                orders["gates"] = to_onnx_gates(value).T
            same = [o for o, ordered in orders.items() if np.array_equal(ordered.ravel(), constant.ravel())]
            matches += [(name, offset, value, order) for order in same[:1]]
        if len(matches) != 1:
            return None
        name, offset, value, order = matches[0]
        external = TensorProto(name=name, dims=value.shape, data_type=TensorProto.FLOAT16)
        external.data_location = TensorProto.EXTERNAL
        for key, entry in {"location": self.path.name, "offset": offset, "length": value.nbytes}.items():
            external.external_data.add(key=key, value=str(entry))
        self.referred.append(external)
        return name, order


def to_onnx_gates(value: np.ndarray) -> np.ndarray:
    """An LSTM's weights [..., 4 × width] from Keras' order of gates to ONNX's."""
    parts = dict(zip(KERAS_GATES, np.split(value, 4, axis=-1), strict=True))
    return np.concatenate([parts[gate] for gate in ONNX_GATES], axis=-1)


def _in_float(name: str, order, target: TensorProto) -> list[onnx.NodeProto]:
    """Nodes that give `target` in float32."""
    ordered = f"{name}/ordered"
    nodes = _ordered(name, order, ordered)
    if order == "gates":
        nodes.append(helper.make_node("Transpose", [ordered], [f"{name}/transposed"], perm=(1, 0)))
        ordered = f"{name}/transposed"
    return nodes + _reshaped(ordered, target.dims, target.name)


def _in_int8(name: str, order, target: TensorProto) -> list[onnx.NodeProto]:
    """Nodes that give `target` in 8 bits, with the scale of each column that `quantize_dynamic` found."""
    scale = f"{target.name.removesuffix('_quantized')}_scale"  # of each column; the zero point is 0
    # QuantizeLinear would do the same, at a tenth of the speed where columns have scales of their own.
    return [
        *_ordered(name, order, f"{name}/ordered"),
        *_reshaped(scale, [target.dims[-1]], f"{name}/scale"),
        helper.make_node("Div", [f"{name}/ordered", f"{name}/scale"], [f"{name}/scaled"]),
        helper.make_node("Round", [f"{name}/scaled"], [f"{name}/rounded"]),
        helper.make_node("Cast", [f"{name}/rounded"], [f"{name}/int8"], to=TensorProto.INT8),
        *_reshaped(f"{name}/int8", target.dims, target.name),
    ]


def _ordered(name: str, order, output: str) -> list[onnx.NodeProto]:
    """Nodes from a weight in 16 bits to the same in 32, its axes or gates in another order."""
    single = f"{name}/float32"
    cast = helper.make_node("Cast", [name], [single], to=TensorProto.FLOAT)
    if order == tuple(range(len(order))):
        return [helper.make_node("Cast", [name], [output], to=TensorProto.FLOAT)]
    if order != "gates":
        return [cast, helper.make_node("Transpose", [single], [output], perm=order)]
    gates = {gate: f"{name}/{gate}" for gate in KERAS_GATES}
    return [
        cast,
        helper.make_node("Split", [single], list(gates.values()), axis=1),
        helper.make_node("Concat", [gates[gate] for gate in ONNX_GATES], [output], axis=1),
    ]


def _reshaped(source: str, shape, output: str) -> list[onnx.NodeProto]:
    dimensions = helper.make_tensor(f"{output}/shape", TensorProto.INT64, [len(shape)], list(shape))
    return [
        helper.make_node("Constant", [], [f"{output}/shape"], value=dimensions),
        helper.make_node("Reshape", [source, f"{output}/shape"], [output]),
    ]
