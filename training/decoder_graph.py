"""One step of an attention decoder, some tokens long, as an ONNX graph."""

from collections.abc import Mapping

import onnx
from onnx import TensorProto, helper

from asr.decoders.recurrent import RecurrentDecoder
from asr.decoders.transformer import TransformerDecoder
from training.graph_writer import GraphWriter

HIDDEN = -1e9  # added to the attention scores of later tokens
# What a recurrent decoder computes for each token in turn.
LOOP_WEIGHTS = {
    "query": ("kernel", "bias"),
    "energy": ("kernel",),
    "cell": ("kernel", "recurrent_kernel", "bias"),
}


class _Step(GraphWriter):
    """What both decoders share."""

    def embedding(self) -> str:
        name = "decoder/tokens/embeddings"
        rows = self.add("Gather", self.stored(name), "tokens")
        rows = self.add("Cast", rows, to=TensorProto.FLOAT)
        scale = self.scale(name)
        return self.add("Mul", rows, self.add("Gather", scale, "tokens")) if scale else rows

    def logits(self, x: str) -> None:
        """Scores of the next token, by the embeddings."""
        y = self.product(self.quantised(x), "decoder/tokens/embeddings", transposed=True)
        self.name(y, "logits")


class _TransformerStep(_Step):
    """Graph of `TransformerDecoder.step`."""

    def __init__(self, decoder: TransformerDecoder, tensors: Mapping[str, TensorProto], int8: bool):
        super().__init__(tensors, int8)
        self.width = decoder.width
        self.heads = decoder.heads
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
        self.logits(self.norm(x, "decoder/norm"))

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

        return self.feed_forward(x, name)


class _RecurrentStep(_Step):
    """Graph of `RecurrentDecoder.step`; LSTM and attention are computed in float32."""

    def __init__(self, decoder: RecurrentDecoder, tensors: Mapping[str, TensorProto], int8: bool):
        super().__init__(tensors, int8)
        utterances = self.add("Shape", "memory_0", start=0, end=1)
        self.by_utterance = self.add("Concat", utterances, self.constant([-1, 1, decoder.width]), axis=0)
        self.rows = self.constant([-1, decoder.width])
        self.weights = {  # outside of the loop
            (layer, name): self.weight(f"decoder/{layer}/{name}")
            for layer, names in LOOP_WEIGHTS.items()
            for name in names
        }
        batch = self.add("Shape", "tokens", start=0, end=1)
        start = self.add(
            "ConstantOfShape", self.add("Concat", batch, self.constant([1, decoder.width]), axis=0)
        )
        pasts = [self.add("Concat", start, f"past_{i}", axis=1) for i in (0, 1)]
        hidden, cell = (self.add("Gather", past, self.constant(-1), axis=1) for past in pasts)
        x = self.add("Transpose", self.embedding(), perm=[1, 0, 2])
        found = self.scan([hidden, cell, self.attended(hidden)], x)
        hidden, cell, context = (self.add("Transpose", part, perm=[1, 0, 2]) for part in found)
        for i, part in enumerate((hidden, cell)):
            self.name(self.add("Concat", f"past_{i}", part, axis=1), f"present_{i}")
        joined = self.add("Concat", hidden, context, axis=-1)
        self.logits(self.add("Tanh", self.dense(self.quantised(joined), "decoder/joined")))

    def attended(self, hidden: str) -> str:
        """The context [batch, width] of h [batch, width]."""
        query = self.add("MatMul", hidden, self.weights["query", "kernel"])
        query = self.add("Reshape", self.add("Add", query, self.weights["query", "bias"]), self.by_utterance)
        query = self.add("Tanh", self.add("Add", query, "memory_0"))  # [utterances, hypotheses, steps, width]
        energies = self.add("MatMul", query, self.weights["energy", "kernel"])
        weights = self.add("Softmax", self.add("Transpose", energies, perm=[0, 1, 3, 2]), axis=-1)
        return self.add("Reshape", self.add("MatMul", weights, "memory_1"), self.rows)

    def scan(self, start: list[str], x: str) -> list[str]:
        """h, c and context [tokens, batch, width] after each token x [tokens, batch, width]."""
        outer, self.nodes = self.nodes, []
        hidden, cell, context = states = ["hidden", "cell", "context"]
        x_and_context = self.add("Concat", "x", context, axis=-1)
        gates = self.add("MatMul", x_and_context, self.weights["cell", "kernel"])
        recurrent = self.add("MatMul", hidden, self.weights["cell", "recurrent_kernel"])
        gates = self.add("Add", self.add("Add", gates, recurrent), self.weights["cell", "bias"])
        into, keep, new, out = self.add("Split", gates, axis=-1, outputs=4)
        into, keep, out = (self.add("Sigmoid", gate) for gate in (into, keep, out))
        new = self.add("Mul", into, self.add("Tanh", new))
        cell = self.add("Add", self.add("Mul", keep, cell), new)
        hidden = self.add("Mul", out, self.add("Tanh", cell))
        after = [hidden, cell, self.attended(hidden)]
        copies = [self.add("Identity", part) for part in after]
        inner, self.nodes = self.nodes, outer
        inputs, outputs = (
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
            for names in ([*states, "x"], [*after, *copies])
        )
        body = helper.make_graph(inner, "token", inputs, outputs)
        return self.add("Scan", *start, x, outputs=6, body=body, num_scan_inputs=1)[3:]


def decoder_graph(
    decoder: TransformerDecoder | RecurrentDecoder, tensors: Mapping[str, TensorProto], int8: bool
) -> onnx.ModelProto:
    """The graph of a step.

    Inputs: tokens int32 [batch, n]; for each of the decoder's parts i past_i [batch, before, width], of the
    tokens before (a Transformer's keys and values of each layer in turn; h and c of an LSTM), and memory_i
    [utterances, heads, steps, width / heads], of the encoder's outputs (keys and values). The batch is a
    multiple of the utterances; hypotheses of one utterance follow each other. Outputs: logits float32 [batch,
    n, vocabulary], and present_i, the past with these tokens.

    Args:
      tensors: external data of the weights; in 8 bits, the matrices are in int8.
      int8: matrix products in 8 bits.
    """
    steps = {TransformerDecoder: _TransformerStep, RecurrentDecoder: _RecurrentStep}
    step = steps[type(decoder)](decoder, tensors, int8)
    count, width = range(decoder.parts), decoder.width
    memory = "utterances", decoder.heads, "steps", width // decoder.heads
    inputs = {
        "tokens": ("batch", "n"),
        **{f"past_{i}": ("batch", "before", width) for i in count},
        **{f"memory_{i}": memory for i in count},
    }
    outputs = {
        "logits": ("batch", "n", decoder.vocabulary),
        **{f"present_{i}": ("batch", "total", width) for i in count},
    }
    return step.model("decoder", inputs, outputs)
