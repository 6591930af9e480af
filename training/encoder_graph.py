"""The encoders as an ONNX graph: from the samples of one utterance to log-probs and the decoder's memory.

An utterance is all of its samples: no step is padding, and nothing is masked.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto

from asr import features
from asr.decoders.recurrent import RecurrentDecoder
from asr.encoders.transformer import position_frequencies
from asr.model import SpeechModel
from training.graph_writer import GraphWriter

CELLS = {  # ONNX's operator, and where Keras has the gates that it takes in turn
    "simple": ("RNN", [0]),
    "lstm": ("LSTM", [0, 3, 1, 2]),  # input, output, forget, cell
    "gru": ("GRU", [0, 1, 2]),
}


class _Encoders(GraphWriter):
    """Graph of `SpeechModel.log_probs`. Steps are [1, steps, width] between the layers."""

    def __init__(self, model: SpeechModel, tensors: Mapping[str, TensorProto], int8: bool):
        super().__init__(tensors, int8)
        writers = {
            "transformer": self.transformer,
            "conformer": self.conformer,
            "recurrent": self.recurrent,
        }
        x = self.log_mel("inputs", model.features)
        for i, encoder in enumerate(model.encoders):
            x = writers[model.descriptions[i]["type"]](x, encoder, encoder.name)
            if model.decoder is not None and i + 1 == model.below_decoder:
                self.name(self.memory(x, model.decoder), "memory")
        if model.output_layer is not None:
            logits = self.dense(self.quantised(x), "output")
            self.name(self.add("LogSoftmax", logits, axis=-1), "log_probs")

    def shape(self, x: str, axis: int) -> str:
        """Length of an axis, [1]."""
        return self.add("Shape", x, start=axis, end=axis + 1)

    def log_mel(self, samples: str, layer: features.LogMel) -> str:
        """Graph of `LogMel`."""

        def number(value):
            return self.constant(value, "float32")

        half, first = features.N_FFT // 2, self.constant([1])
        x = self.add("Pad", samples, self.constant([0, 0, 0, half]))
        reflected = self.add(
            "Slice", x, self.constant([half]), self.constant([0]), first, self.constant([-1])
        )
        x = self.add("Unsqueeze", self.add("Concat", reflected, x, axis=1), first)
        basis = self.constant(features.dft_basis().transpose(2, 1, 0), "float32")
        x = self.add("Conv", x, basis, strides=[features.HOP_SAMPLES])
        x = self.add("Slice", x, self.constant([0]), self.constant([-1]), self.constant([2]))
        real, imaginary = self.add("Split", x, axis=1, outputs=2)
        power = self.add("Add", self.add("Mul", real, real), self.add("Mul", imaginary, imaginary))
        mel = self.constant(features.mel_basis(layer.mels).T, "float32")
        x = self.add("Max", self.add("MatMul", mel, power), number(features.POWER_FLOOR))
        x = self.add("Log", self.add("Transpose", x, perm=[0, 2, 1]))
        if layer.scale == "natural":
            return x
        x = self.add("Div", x, number(np.log(10)))
        lowest = self.add("Sub", self.add("ReduceMax", x), number(features.WHISPER_RANGE_LOG10))
        x = self.add("Div", self.add("Add", self.add("Max", x, lowest), number(4)), number(4))
        if layer.scale == "whisper":
            return x
        x = self.add("Sub", x, self.add("ReduceMean", x, axes=[1]))
        variance = self.add("ReduceMean", self.add("Mul", x, x), axes=[1])
        variance = self.add("Add", variance, number(features.MIN_DEVIATION**2))
        return self.add("Div", x, self.add("Sqrt", variance))

    def convolution(self, x: str, name: str, order: list[int], **attributes) -> str:
        """A convolution over steps of x [1, width, steps]; order: of its kernel's axes for ONNX."""
        kernel = self.add("Transpose", self.weight(f"{name}/kernel"), perm=order)
        return self.add("Conv", x, kernel, self.weight(f"{name}/bias"), **attributes)

    def stem(self, x: str, layer, name: str) -> str:
        """Graph of `ConvSubsampling`, and the positions."""
        x = self.add("Transpose", x, perm=[0, 2, 1])
        for i in range(1 + layer.halvings):
            strides = [2 if i else 1]
            x = self.convolution(x, f"{name}/conv_{i}", [2, 1, 0], strides=strides, pads=[1, 1])
            x = self.add("Gelu", x)
        x = self.add("Transpose", x, perm=[0, 2, 1])
        zero, one = self.constant(0), self.constant(1)
        steps = self.add("Range", zero, self.add("Squeeze", self.shape(x, 1)), one)
        steps = self.add("Unsqueeze", self.add("Cast", steps, to=TensorProto.FLOAT), self.constant([1]))
        frequencies = self.constant(position_frequencies(layer.width), "float32")
        angles = self.add("Mul", steps, frequencies)
        positions = self.add("Concat", self.add("Sin", angles), self.add("Cos", angles), axis=1)
        return self.add("Add", x, positions)

    def attention(self, x: str, heads: int, name: str) -> str:
        """x + attention of the normalised x."""
        y = self.quantised(self.norm(x, f"{name}_norm"))
        y = [self.dense(y, f"{name}/{part}") for part in ("query", "key", "value")]
        y = self.add("MultiHeadAttention", *y, num_heads=heads)
        return self.add("Add", x, self.dense(self.quantised(y), f"{name}/out"))

    def transformer(self, x: str, encoder, name: str) -> str:
        if encoder.stem:
            x = self.stem(x, encoder.convolutions, f"{name}/stem")
        for i, block in enumerate(encoder.blocks):
            x = self.attention(x, block.attention.heads, f"{name}/block_{i}/attention")
            x = self.feed_forward(x, f"{name}/block_{i}")
        return self.norm(x, f"{name}/norm") if encoder.final_norm else x

    def conformer(self, x: str, encoder, name: str) -> str:
        x = self.stem(x, encoder.convolutions, f"{name}/stem")
        for i, block in enumerate(encoder.blocks):
            part = f"{name}/block_{i}"
            x = self.half_feed_forward(x, f"{part}/first")
            x = self.attention(x, block.attention.heads, f"{part}/attention")
            x = self.add("Add", x, self.convolution_module(x, block.convolution, f"{part}/convolution"))
            x = self.norm(self.half_feed_forward(x, f"{part}/second"), f"{part}/norm")
        return x

    def silu(self, x: str) -> str:
        return self.add("Mul", x, self.add("Sigmoid", x))

    def half_feed_forward(self, x: str, name: str) -> str:
        y = self.silu(self.dense(self.quantised(self.norm(x, f"{name}/norm")), f"{name}/expand"))
        y = self.dense(self.quantised(y), f"{name}/contract")
        return self.add("Add", x, self.add("Mul", y, self.constant(0.5, "float32")))

    def convolution_module(self, x: str, layer, name: str) -> str:
        y = self.dense(self.quantised(self.norm(x, f"{name}/norm")), f"{name}/gated")
        value, gate = self.add("Split", y, axis=-1, outputs=2)
        y = self.add("Transpose", self.add("Mul", value, self.add("Sigmoid", gate)), perm=[0, 2, 1])
        [kernel], groups = layer.depthwise.kernel_size, layer.project.units
        pads = [kernel // 2, kernel // 2]
        y = self.convolution(y, f"{name}/depthwise", [1, 2, 0], group=groups, pads=pads)
        y = self.norm(self.add("Transpose", y, perm=[0, 2, 1]), f"{name}/depthwise_norm")
        return self.dense(self.quantised(self.silu(y)), f"{name}/project")

    def recurrent(self, x: str, encoder, name: str) -> str:
        """Graph of `RecurrentEncoder`; steps are [steps, 1, width] inside."""
        stack, outputs = encoder.subsampling, encoder.width * (1 + encoder.bidirectional)
        missing = self.add("Mod", self.add("Neg", self.shape(x, 1)), self.constant([stack]))
        pads = self.add("Concat", self.constant([0] * 4), missing, self.constant([0]), axis=0)
        channels = encoder.forwards[0].cell.kernel.shape[0]
        x = self.add("Reshape", self.add("Pad", x, pads), self.constant([-1, 1, channels]))
        for layers in zip(*filter(None, (encoder.forwards, encoder.backwards)), strict=True):
            names = [f"{name}/{layer.name}/{layer.cell.name}" for layer in layers]
            x = self.recurrence(x, encoder.cell, encoder.width, names)  # [steps, directions, 1, width]
            x = self.add("Reshape", x, self.constant([-1, 1, outputs]))
        return self.add("Reshape", x, self.constant([1, -1, outputs]))

    def recurrence(self, x: str, cell: str, width: int, layers: list[str]) -> str:
        """States of one layer, or of one in each direction, from x [steps, 1, channels]."""
        operator, gates = CELLS[cell]
        first, flat = self.constant([0]), self.constant([len(layers), -1])
        columns = np.arange(len(gates) * width).reshape(-1, width)[gates].ravel()
        zeros = np.zeros((len(layers), len(columns)))
        columns = self.constant(columns)

        def joined(read, part):
            """A weight of all directions, [directions, ..., gates × width]."""
            values = [self.add("Gather", read(f"{layer}/{part}"), columns, axis=-1) for layer in layers]
            return self.add("Concat", *(self.add("Unsqueeze", value, first) for value in values), axis=0)

        options = {"hidden_size": width, "direction": "forward" if len(layers) == 1 else "bidirectional"}
        bias = self.add("Reshape", joined(self.weight, "bias"), flat)
        if cell == "gru":  # its weight has two biases, of the inputs and of the states
            options["linear_before_reset"] = 1
        else:
            bias = self.add("Concat", bias, self.constant(zeros, "float32"), axis=1)
        matrices = "kernel", "recurrent_kernel"
        if self.int8 and cell == "lstm":
            kernels = [joined(self.stored, part) for part in matrices]
            scales = [self.add("Reshape", joined(self.scale, part), flat) for part in matrices]
            zero = self.constant(zeros, "int8")
            scales = scales[0], zero, scales[1], zero
            return self.add("DynamicQuantizeLSTM", x, *kernels, bias, *[""] * 4, *scales, **options)
        kernels = [self.add("Transpose", joined(self.weight, part), perm=[0, 2, 1]) for part in matrices]
        return self.add(operator, x, *kernels, bias, **options)

    def memory(self, x: str, decoder) -> str:
        """`memory` of the decoder, [parts, 1, heads, steps, width / heads]."""
        codes = self.quantised(x)
        if isinstance(decoder, RecurrentDecoder):
            parts = [self.dense(codes, "decoder/key"), x]
        else:
            parts = [
                self.dense(codes, f"decoder/block_{i}/cross_attention/{part}")
                for i in range(len(decoder.blocks))
                for part in ("key", "value")
            ]
        memory = self.add("Concat", *parts, axis=0)
        shape = self.constant([decoder.parts, 1, -1, decoder.heads, decoder.width // decoder.heads])
        return self.add("Transpose", self.add("Reshape", memory, shape), perm=[0, 1, 3, 2, 4])


def encoder_graph(model: SpeechModel, tensors: Mapping[str, TensorProto], int8: bool) -> onnx.ModelProto:
    """The graph of what `asr.engine.Engine.encode` gives.

    Input: inputs float32 [1, samples]. Outputs, float32: log_probs [1, steps, units] of a model with a CTC
    head; memory [parts, 1, heads, steps, width / heads] of a model with a decoder.

    Args:
      tensors: external data of the weights; in 8 bits, the matrices are in int8.
      int8: matrix products and LSTMs in 8 bits.
    """
    outputs = {}
    if model.output_layer is not None:
        outputs["log_probs"] = (1, "steps", model.output_layer.units)
    if model.decoder is not None:
        decoder = model.decoder
        size = decoder.width // decoder.heads
        outputs["memory"] = (decoder.parts, 1, decoder.heads, "memory_steps", size)
    return _Encoders(model, tensors, int8).model("encoders", {"inputs": (1, "samples")}, outputs)
