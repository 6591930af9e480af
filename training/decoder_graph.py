"""One step of an attention decoder as an ONNX graph, with ONNX Runtime's fused operators.

The graph of Keras, converted, would take several times as long: it copies the memory at each step.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from asr.decoders.transformer import TransformerDecoder

MICROSOFT = "com.microsoft"  # domain of ONNX Runtime's own operators
FUSED = ("Gelu", "MatMulIntegerToFloat", "MultiHeadAttention")
SMALLEST_RANGE = 1e-6  # of a token
HIDDEN = -1e9  # added to the attention scores of later tokens


class GraphWriter:
    """Collects nodes and initializers.

    Args:
      tensors: external data by name; a name with the ending "/scale" has the scales of a matrix in int8.
    """

    def __init__(self, tensors: Mapping[str, TensorProto]):
        self.tensors = tensors
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes):
        """Adds a node; returns the name of its output, or a list of several."""
        names = [f"{operator}_{len(self.nodes)}_{i}" for i in range(outputs)]
        domain = MICROSOFT if operator in FUSED else None
        self.nodes.append(helper.make_node(operator, inputs, names, domain=domain, **attributes))
        return names if outputs > 1 else names[0]

    def name(self, inner: str, outer: str) -> None:
        """Makes a tensor an output of the graph."""
        self.nodes.append(helper.make_node("Identity", [inner], [outer]))

    def constant(self, value, dtype: str = "int64") -> str:
        tensor = numpy_helper.from_array(np.array(value, dtype), f"constant_{dtype}_{value}")
        self.initializers[tensor.name] = tensor
        return tensor.name

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


class _Step(GraphWriter):
    """Graph of `TransformerDecoder.step`."""

    def __init__(self, decoder: TransformerDecoder, tensors: Mapping[str, TensorProto], int8: bool):
        super().__init__(tensors)
        self.int8, self.width = int8, decoder.width
        self.heads = decoder.blocks[0].self_attention.heads
        last = self.add("Shape", "tokens", start=1, end=2)
        before = self.add("Shape", "past_0", start=1, end=2)
        before, total = (self.add("Squeeze", n) for n in (before, self.add("Add", before, last)))
        one = self.constant(1)
        places = self.add("Range", before, total, one)
        every = self.add("Range", self.constant(0), total, one)
        positions = self.add("Gather", self.weight("decoder/positions/embeddings"), places)
        x = self.add("Add", self.embedding(), positions)
        later = self.add("Greater", every, self.add("Unsqueeze", places, self.constant([1])))
        later = self.add("Cast", later, to=TensorProto.FLOAT)
        later = self.add("Mul", later, self.constant(HIDDEN, "float32"))
        self.mask = self.add("Unsqueeze", later, self.constant([0, 1]))
        self.shape = self.add("Shape", x)
        utterances = self.add("Shape", "memory_0", start=0, end=1)
        rest = self.constant([-1, self.width])
        self.by_utterance = self.add("Concat", utterances, rest, axis=0)  # shape of the queries of a memory
        for i in range(len(decoder.blocks)):
            x = self.block(x, i)
        y = self.quantised(self.norm(x, "decoder/norm"))
        self.name(self.product(y, "decoder/tokens/embeddings", transposed=True), "logits")

    def embedding(self) -> str:
        name = "decoder/tokens/embeddings"
        rows = self.add("Gather", self.stored(name), "tokens")
        rows = self.add("Cast", rows, to=TensorProto.FLOAT)
        scale = self.scale(name)
        return self.add("Mul", rows, self.add("Gather", scale, "tokens")) if scale else rows

    def block(self, x: str, index: int) -> str:
        name = f"decoder/block_{index}"
        y = self.quantised(self.norm(x, f"{name}/self_attention_norm"))
        own = [self.dense(y, f"{name}/self_attention/{part}") for part in ("query", "key", "value")]
        for i, part in enumerate(own[1:], 2 * index):
            own[1 + i % 2] = self.add("Concat", f"past_{i}", part, axis=1)
            self.name(own[1 + i % 2], f"present_{i}")
        y = self.add("MultiHeadAttention", *own, "", "", self.mask, num_heads=self.heads)
        x = self.add("Add", x, self.dense(self.quantised(y), f"{name}/self_attention/out"))

        y = self.quantised(self.norm(x, f"{name}/cross_attention_norm"))
        y = self.add("Reshape", self.dense(y, f"{name}/cross_attention/query"), self.by_utterance)
        memory = f"memory_{2 * index}", f"memory_{2 * index + 1}"
        y = self.add("Reshape", self.add("MultiHeadAttention", y, *memory, num_heads=self.heads), self.shape)
        x = self.add("Add", x, self.dense(self.quantised(y), f"{name}/cross_attention/out"))

        y = self.dense(self.quantised(self.norm(x, f"{name}/feed_forward_norm")), f"{name}/expand")
        y = self.dense(self.quantised(self.add("Gelu", y)), f"{name}/contract")
        return self.add("Add", x, y)

    def norm(self, x: str, name: str) -> str:
        weights = self.weight(f"{name}/gamma"), self.weight(f"{name}/beta")
        return self.add("LayerNormalization", x, *weights, axis=-1, epsilon=1e-5)

    def quantised(self, x: str):
        """What `product` takes: codes of x in 8 bits, and the largest value of each token; or x itself.

        Each token has its own range. DynamicQuantizeLinear has one for all, and a token's result would depend
        on the tokens beside it.
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
        kernel = self.stored(matrix) if self.int8 else self.weight(matrix)
        if transposed:
            kernel = self.add("Transpose", kernel, perm=[1, 0])
        if self.int8:
            codes, largest = x
            scale, zero = self.constant(1 / 127, "float32"), self.constant(128, "uint8")
            scales = self.add("Reshape", self.scale(matrix), self.constant([-1]))
            product = self.add("MatMulIntegerToFloat", codes, kernel, scale, scales, zero)
            product = self.add("Mul", product, largest)
        else:
            product = self.add("MatMul", x, kernel)
        return self.add("Add", product, bias) if bias else product


def decoder_graph(
    decoder: TransformerDecoder, tensors: Mapping[str, TensorProto], int8: bool, opset: int
) -> onnx.ModelProto:
    """The graph of a step.

    Inputs: tokens int32 [batch, n]; for each layer i the self-attention's keys past_2i and values past_2i+1
    of the tokens before, [batch, before, width], and the keys memory_2i and values memory_2i+1 of the
    encoder's outputs, [utterances, heads, steps, width / heads]. The batch is a multiple of the utterances;
    hypotheses of one utterance follow each other. Outputs: logits float32 [batch, n, vocabulary], and
    present_2i and present_2i+1, the past with these tokens.

    Args:
      tensors: external data of the weights; in 8 bits, the matrices are in int8.
      int8: matrix products in 8 bits.
    """
    step = _Step(decoder, tensors, int8)
    count = range(2 * len(decoder.blocks))
    width, heads = step.width, step.heads

    def value(name, *shape, kind=TensorProto.FLOAT):
        return helper.make_tensor_value_info(name, kind, shape)

    memory = "utterances", heads, "steps", width // heads
    inputs = [
        value("tokens", "batch", "n", kind=TensorProto.INT32),
        *(value(f"past_{i}", "batch", "before", width) for i in count),
        *(value(f"memory_{i}", *memory) for i in count),
    ]
    outputs = [
        value("logits", "batch", "n", decoder.vocabulary),
        *(value(f"present_{i}", "batch", "total", width) for i in count),
    ]
    graph = helper.make_graph(step.nodes, "decoder", inputs, outputs, list(step.initializers.values()))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)
