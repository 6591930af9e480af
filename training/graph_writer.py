"""Writes ONNX graphs, layer by layer, with ONNX Runtime's fused operators.

Graphs converted from Keras are slower: they have no fused attention, and the decoder's copies the memory at
each step.
"""

import itertools
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
MICROSOFT = "com.microsoft"  # domain of ONNX Runtime's own operators
FUSED = ("DynamicQuantizeLSTM", "Gelu", "MatMulIntegerToFloat", "MultiHeadAttention")
SMALLEST_RANGE = 1e-6  # of a step


class GraphWriter:
    """Collects nodes and initializers. Tensors are named, and layers are the prefixes of their weights.

    Args:
      tensors: external data by name; a name with the ending "/scale" has the scales of a matrix in int8.
      int8: matrix products in 8 bits; the matrices must be in int8.
    """

    def __init__(self, tensors: Mapping[str, TensorProto], int8: bool):
        self.tensors, self.int8 = tensors, int8
        self.nodes: list[onnx.NodeProto] = []
        self._numbers = itertools.count()
        self.initializers: dict[str, TensorProto] = {}

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes):
        """Adds a node; returns the name of its output, or a list of several."""
        names = [f"{operator}_{next(self._numbers)}" for _ in range(outputs)]
        domain = MICROSOFT if operator in FUSED else None
        self.nodes.append(helper.make_node(operator, inputs, names, domain=domain, **attributes))
        return names if outputs > 1 else names[0]

    def name(self, inner: str, outer: str) -> None:
        """Makes a tensor an output of the graph."""
        self.nodes.append(helper.make_node("Identity", [inner], [outer]))

    def model(self, name: str, inputs: Mapping[str, tuple], outputs: Mapping[str, tuple]) -> onnx.ModelProto:
        """The graph, given the shapes of its inputs and outputs; tokens are int32, all others float32."""

        def values(shapes):
            types = {"tokens": TensorProto.INT32}
            return [
                helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), shape)
                for name, shape in shapes.items()
            ]

        initializers = list(self.initializers.values())
        graph = helper.make_graph(self.nodes, name, values(inputs), values(outputs), initializers)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def constant(self, value, dtype: str = "int64") -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers[name] = numpy_helper.from_array(np.array(value, dtype), name)
        return name

    def stored(self, name: str) -> str:
        """A tensor as it is in the file."""
        self.initializers[name] = self.tensors[name]
        return name

    def scale(self, name: str) -> str | None:
        """Scales of a matrix in float32; None of a matrix that is not in int8."""
        if f"{name}/scale" not in self.tensors:
            return None
        return self.add("Cast", self.stored(f"{name}/scale"), to=TensorProto.FLOAT)

    def weight(self, name: str) -> str:
        """A tensor of the file in float32."""
        value = self.add("Cast", self.stored(name), to=TensorProto.FLOAT)
        scale = self.scale(name)
        return self.add("Mul", value, scale) if scale else value

    def norm(self, x: str, name: str) -> str:
        weights = self.weight(f"{name}/gamma"), self.weight(f"{name}/beta")
        return self.add("LayerNormalization", x, *weights, axis=-1, epsilon=1e-5)

    def quantised(self, x: str):
        """What `dense` and `product` take: codes of x in 8 bits, and the largest value of each step; or x.

        Each step has its own range. DynamicQuantizeLinear has one for all, and with it a step's result would
        depend on the steps beside it.
        """
        if not self.int8:
            return x
        largest = self.add("ReduceMax", self.add("Abs", x), axes=[-1])
        largest = self.add("Max", largest, self.constant(SMALLEST_RANGE, "float32"))
        scale, zero = self.constant(1 / 127, "float32"), self.constant(128, "uint8")
        return self.add("QuantizeLinear", self.add("Div", x, largest), scale, zero), largest

    def dense(self, x, name: str) -> str:
        bias = self.weight(f"{name}/bias") if f"{name}/bias" in self.tensors else None
        return self.product(x, f"{name}/kernel", bias)

    def product(self, x, matrix: str, bias: str | None = None, transposed: bool = False) -> str:
        """x · matrix + bias."""
        kernel = self.weight(matrix) if isinstance(x, str) else self.stored(matrix)
        if transposed:
            kernel = self.add("Transpose", kernel, perm=[1, 0])
        if not isinstance(x, str):
            codes, largest = x
            scale, zero = self.constant(1 / 127, "float32"), self.constant(128, "uint8")
            scales = self.add("Reshape", self.scale(matrix), self.constant([-1]))
            product = self.add("MatMulIntegerToFloat", codes, kernel, scale, scales, zero)
            product = self.add("Mul", product, largest)
        else:
            product = self.add("MatMul", x, kernel)
        return self.add("Add", product, bias) if bias else product

    def feed_forward(self, x: str, name: str) -> str:
        """x + the feed-forward layers of a Transformer block."""
        y = self.dense(self.quantised(self.norm(x, f"{name}/feed_forward_norm")), f"{name}/expand")
        return self.add("Add", x, self.dense(self.quantised(self.add("Gelu", y)), f"{name}/contract"))
