"""One step of an attention decoder as an ONNX graph."""

from collections.abc import Mapping

import onnx
from onnx import TensorProto

from asr.decoders.transformer import TransformerDecoder
from training.graph_writer import GraphWriter

HIDDEN = -1e9  # added to the attention scores of later tokens


class _Step(GraphWriter):
    """Graph of `TransformerDecoder.step`."""

    def __init__(self, decoder: TransformerDecoder, tensors: Mapping[str, TensorProto], int8: bool):
        super().__init__(tensors, int8)
        self.width = decoder.width
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

        return self.feed_forward(x, name)


def decoder_graph(
    decoder: TransformerDecoder, tensors: Mapping[str, TensorProto], int8: bool
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

    memory = "utterances", heads, "steps", width // heads
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
