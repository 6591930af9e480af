"""Log-probs from a bundle: by ONNX Runtime from the exported graph, or by Keras from the weights."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from asr.audio import SAMPLE_RATE
from asr.bundle import Bundle, BundleError, weights_digest, weights_path

SHORTEST_SAMPLES = 400  # one window; shorter sound is padded with silence
GRAPH = "engine.onnx"
WEIGHTS_DIGEST = "weights_digest"  # key of the graph's metadata


@dataclass(frozen=True)
class Encoding:
    """What the encoders say about one utterance.

    Attributes:
      log_probs: float32 [steps, units], log-probabilities of the CTC head; None for a model without one.
      memory: float32 [2 × layers, 1, steps, width], keys and values that the decoder attends to; None for a
        model without one.
      seconds: length of the utterance.
    """

    log_probs: np.ndarray | None
    memory: np.ndarray | None
    seconds: float = 0.0


class Engine:
    """The acoustic model.

    Args:
      encode: samples [1, samples], lengths [1] → an Encoding.
      step: tokens int32 [batch, tokens], past [2 × layers, batch, before, width], memory [2 × layers, batch,
        steps, width] → logits float32 [batch, tokens, vocabulary] and the past with these tokens; None for a
        model without a decoder. See `asr.decoders`.
      step_seconds: length of a step of the log-probs.
      silence_seconds: that the decoder needs after each utterance.
    """

    def __init__(
        self,
        encode: Callable[[np.ndarray, np.ndarray], Encoding],
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
            backend = "onnx" if (bundle.directory / GRAPH).exists() else "keras"
        encode, step = _onnx_runner(bundle, threads) if backend == "onnx" else _keras_runner(bundle)
        return cls(encode, step, bundle.step_seconds, bundle.silence_seconds)

    def encode(self, samples: np.ndarray) -> Encoding:
        """What the encoders say about one utterance.

        Args:
          samples: float32 [samples] at 16 kHz; up to 30 s with an encoder from Whisper.
        """
        count = max(SHORTEST_SAMPLES, len(samples))
        padded = np.pad(samples, (0, count + self._silence - len(samples))).astype("float32", copy=False)
        encoding = self._encode(padded[np.newaxis], np.array([len(padded)], dtype="int32"))
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


def _onnx_runner(bundle: Bundle, threads: int | None):
    import onnxruntime

    path = bundle.directory / GRAPH
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
    if {i.name for i in session.get_inputs()} != {"inputs", "lengths"}:
        raise BundleError(f"{path}: is no graph of ours; run python -m training.export again")
    digest = session.get_modelmeta().custom_metadata_map.get(WEIGHTS_DIGEST)
    if digest != weights_digest(weights_path(bundle.directory)):
        raise BundleError(f"{path}: was exported from other weights; run python -m training.export again")

    def encode(samples, lengths):
        log_probs, steps = session.run(["log_probs", "steps"], {"inputs": samples, "lengths": lengths})
        return Encoding(log_probs[0, : steps[0]], None)

    return encode, None


def _keras_runner(bundle: Bundle):
    import keras

    model = bundle.build_model()

    class Encode(keras.Model):
        """Samples to what the heads need, compiled as one graph."""

        def call(self, inputs):
            outputs = model.log_probs(inputs)
            if "encoded" in outputs:
                outputs["memory"] = model.decoder.memory(outputs.pop("encoded"))[:, 0]
            return outputs

    class Step(keras.Model):
        """`step` of the decoder for one utterance, compiled as one graph."""

        def call(self, inputs):
            lengths = keras.ops.full((1,), keras.ops.shape(inputs["memory"])[2], "int32")
            return model.decoder.step(inputs["tokens"], inputs["past"], inputs["memory"], lengths)

    encoders, decoder = Encode(), Step()

    def encode(samples, lengths):
        outputs = encoders.predict_on_batch({"inputs": samples, "lengths": lengths})
        log_probs = memory = None
        if "log_probs" in outputs:
            log_probs = outputs["log_probs"][0, : outputs["lengths"][0]]
        if "memory" in outputs:
            memory = outputs["memory"][:, np.newaxis, : outputs["encoded_lengths"][0]]
        return Encoding(log_probs, memory)

    def step(tokens, past, memory):
        return decoder.predict_on_batch({"tokens": tokens, "past": past, "memory": memory})

    return encode, None if model.decoder is None else step
