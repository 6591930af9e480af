"""Log-probs from a bundle: by ONNX Runtime from the exported graph, or by Keras from the weights."""

from collections.abc import Callable
from typing import Literal

import numpy as np

from asr.bundle import Bundle, BundleError, weights_digest, weights_path

SHORTEST_SAMPLES = 400  # one window; shorter sound is padded with silence
GRAPH = "engine.onnx"
WEIGHTS_DIGEST = "weights_digest"  # key of the graph's metadata


class Engine:
    """The acoustic model. `run`: samples [1, samples], lengths → log-probs [1, steps, units], steps."""

    def __init__(self, run: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]):
        self._run = run

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
        return cls(_onnx_runner(bundle, threads) if backend == "onnx" else _keras_runner(bundle))

    def log_probs(self, samples: np.ndarray) -> np.ndarray:
        """Log-probabilities of every unit at every step of one utterance: float32 [steps, units].

        Args:
          samples: float32 [samples] at 16 kHz; up to 30 s with an encoder from Whisper.
        """
        padded = np.pad(samples, (0, max(0, SHORTEST_SAMPLES - len(samples)))).astype("float32", copy=False)
        log_probs, steps = self._run(padded[np.newaxis], np.array([len(padded)], dtype="int32"))
        return log_probs[0, : steps[0]]


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

    return lambda samples, lengths: session.run(
        ["log_probs", "steps"], {"inputs": samples, "lengths": lengths}
    )


def _keras_runner(bundle: Bundle):
    import keras

    model = bundle.build_model()

    class LogProbs(keras.Model):
        """Samples to log-probs, compiled as one graph."""

        def call(self, inputs):
            outputs = model.log_probs(inputs)
            return outputs["log_probs"], outputs["lengths"]

    compiled = LogProbs()
    return lambda samples, lengths: compiled.predict_on_batch({"inputs": samples, "lengths": lengths})
