"""Log-probs from a bundle: by ONNX Runtime from the exported graph, or by Keras from the weights."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from asr.audio import SAMPLE_RATE
from asr.bundle import Bundle, BundleError, weights_digest, weights_path

SHORTEST_SAMPLES = 400  # one window; shorter sound is padded with silence
ENGINE_GRAPH, DECODER_GRAPH = "engine.onnx", "decoder.onnx"
WEIGHTS_DIGEST = "weights_digest"  # key of a graph's metadata


@dataclass(frozen=True)
class Encoding:
    """What the encoders say about one utterance.

    Attributes:
      log_probs: float32 [steps, units], log-probabilities of the CTC head; None for a model without one.
      memory: float32 [2 × layers, 1, heads, steps, width / heads], keys and values that the decoder attends
        to; None for a model without one.
      seconds: length of the utterance.
    """

    log_probs: np.ndarray | None
    memory: np.ndarray | None
    seconds: float = 0.0


class Engine:
    """The acoustic model.

    Args:
      encode: samples [1, samples] → an Encoding.
      step: tokens int32 [batch, tokens], past [2 × layers, batch, before, width], memory [2 × layers,
        utterances, heads, steps, width / heads] → logits float32 [batch, tokens, vocabulary] and the past
        with these tokens; None for a model without a decoder. The batch is a multiple of the utterances,
        and hypotheses of one utterance follow each other, so that they need its memory once. See
        `asr.decoders`.
      step_seconds: length of a step of the log-probs.
      silence_seconds: that the decoder needs after each utterance.
    """

    def __init__(
        self,
        encode: Callable[[np.ndarray], Encoding],
        step: Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
        step_seconds: float = 0.0,
        silence_seconds: float = 0.0,
    ):
        self._encode, self.step = encode, step
        self._step_samples, self._silence = (
            round(step_seconds * SAMPLE_RATE),
            round(silence_seconds * SAMPLE_RATE),
        )

    @classmethod
    def load(
        cls, bundle: Bundle, threads: int | None = None, backend: Literal["onnx", "keras"] | None = None
    ) -> "Engine":
        """The engine of a bundle.

        Args:
          threads: that one computation may use, for ONNX Runtime; None leaves the choice to it.
          backend: None takes the exported graph where the bundle has one, else Keras.

        Raises BundleError where the graph or the weights cannot be used.
        """
        if backend is None:
            backend = "onnx" if (bundle.directory / ENGINE_GRAPH).exists() else "keras"
        encode, step = _onnx_runner(bundle, threads) if backend == "onnx" else _keras_runner(bundle)
        return cls(encode, step, bundle.step_seconds, bundle.silence_seconds)

    def encode(self, samples: np.ndarray) -> Encoding:
        """What the encoders say about one utterance.

        Args:
          samples: float32 [samples] at 16 kHz; up to 30 s with an encoder from Whisper.
        """
        count = max(SHORTEST_SAMPLES, len(samples))
        padded = np.pad(samples, (0, count + self._silence - len(samples))).astype("float32", copy=False)
        encoding = self._encode(padded[np.newaxis])
        log_probs = encoding.log_probs
        if self._silence and log_probs is not None:
            log_probs = log_probs[: -(-count // self._step_samples)]
        return replace(encoding, log_probs=log_probs, seconds=len(samples) / SAMPLE_RATE)

    def log_probs(self, samples: np.ndarray) -> np.ndarray:
        """Log-probabilities of every unit at every step of one utterance: float32 [steps, units].

        Args:
          samples: as of `encode`.
        """
        return self.encode(samples).log_probs


def _encoding(found: dict[str, np.ndarray]) -> Encoding:
    """From log_probs [1, steps, units] of a CTC head, and memory of a decoder."""
    return Encoding(found["log_probs"][0] if "log_probs" in found else None, found.get("memory"))


def _onnx_runner(bundle: Bundle, threads: int | None):
    digest = weights_digest(weights_path(bundle.directory))
    encoders = _session(bundle.directory / ENGINE_GRAPH, ("inputs",), digest, threads)
    outputs = [output.name for output in encoders.get_outputs()]

    def encode(samples):
        found = encoders.run(outputs, {"inputs": samples})
        return _encoding(dict(zip(outputs, found, strict=True)))

    if not bundle.config.get("decoder"):
        return encode, None
    decoder = _session(bundle.directory / DECODER_GRAPH, ("tokens", "past_0", "memory_0"), digest, threads)

    def step(tokens, past, memory):
        inputs = {f"past_{i}": part for i, part in enumerate(past)}
        inputs |= {f"memory_{i}": part for i, part in enumerate(memory)}
        logits, *present = decoder.run(None, {"tokens": tokens, **inputs})
        return logits, np.stack(present)

    return encode, step


def _session(path: Path, inputs: tuple[str, ...], digest: str, threads: int | None):
    """ONNX Runtime's session of a graph that was exported from the weights of this digest."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    # Idle threads that spin cost half again the processor time where two utterances are computed at once.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors share no base class
        raise BundleError(
            f"{path}: {str(error).splitlines()[0]}; run python -m training.export again"
        ) from None
    names = {i.name for i in session.get_inputs()}
    if not names.issuperset(inputs) or "lengths" in names:  # which graphs had before 27 November 2026
        raise BundleError(f"{path}: is no graph of ours; run python -m training.export again")
    if session.get_modelmeta().custom_metadata_map.get(WEIGHTS_DIGEST) != digest:
        raise BundleError(f"{path}: was exported from other weights; run python -m training.export again")
    return session


def _keras_runner(bundle: Bundle):
    import keras
    from keras import ops

    model = bundle.build_model()

    class Encode(keras.Model):
        """Samples to what the heads need, compiled as one graph."""

        def call(self, samples):
            count = ops.shape(samples)[1]
            outputs = model.log_probs({"inputs": samples, "lengths": ops.full((1,), count, "int32")})
            if model.decoder is not None:
                memory = model.decoder.memory(outputs.pop("encoded"))
                parts, batch, steps, width = ops.shape(memory)
                heads = model.decoder.heads
                memory = ops.reshape(memory, (parts, batch, steps, heads, width // heads))
                outputs["memory"] = ops.transpose(memory, (1, 0, 3, 2, 4))  # batch first, as Keras expects
            return outputs

    class Step(keras.Model):
        """`step` of the decoder, compiled as one graph."""

        def call(self, inputs):
            tokens, memory = inputs["tokens"], inputs["memory"]
            count, utterances, heads, steps, size = ops.shape(memory)
            memory = ops.transpose(memory, (0, 1, 3, 2, 4))
            memory = ops.reshape(memory, (count, utterances, steps, heads * size))
            memory = ops.repeat(memory, ops.shape(tokens)[0] // utterances, axis=1)
            lengths = ops.full((1,), steps, "int32")
            return model.decoder.step(tokens, inputs["past"], memory, lengths)

    encoders, decoder = Encode(), Step()

    def encode(samples):
        found = encoders.predict_on_batch(samples)
        if "memory" in found:
            found["memory"] = found["memory"].swapaxes(0, 1)
        return _encoding(found)

    def step(tokens, past, memory):
        return decoder.predict_on_batch({"tokens": tokens, "past": past, "memory": memory})

    return encode, None if model.decoder is None else step
