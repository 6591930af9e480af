"""How far back in time a loss reaches: the norm of its gradient by distance (vanishing gradients)."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from asr.decoding.alignment import forced_align
from asr.model import SpeechModel
from asr.tokenizer import Tokenizer
from training.data import pad, pad_batch

PLACES = 8  # steps of each utterance at which the loss is taken


class InputGradient(keras.Model):
    """Finds the gradient with respect to the features by the autodiff of any backend.

    A variable is added to the features that is always zero. After one step of gradient descent at the rate 1
    it is the negative gradient.

    Args:
      network: with a CTC head; its weights are not changed.
      shape: of the features, [batch, frames, mels].
    """

    def __init__(self, network: SpeechModel, shape: Sequence[int]):
        super().__init__(name="input_gradient")
        self.network = network
        network.trainable = False
        self.shift = self.add_weight(shape=tuple(shape), initializer="zeros", name="shift")
        self.built = True
        self.compile(optimizer=keras.optimizers.SGD(1.0), jit_compile=False)
        self.optimizer.build(self.trainable_variables)

    def call(self, inputs):
        return self.network.heads(inputs["features"] + self.shift, inputs["lengths"])["logits"]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The sum over the batch of -ln P(unit) at one step of each row."""
        log_probs = ops.log_softmax(ops.cast(y_pred, "float32"), axis=-1)
        at_place = ops.take_along_axis(log_probs, y["places"][:, None, None], axis=1)[:, 0]
        return -ops.sum(ops.take_along_axis(at_place, y["units"][:, None], axis=1))

    def of(self, features: np.ndarray, length: int, places: np.ndarray, units: np.ndarray) -> np.ndarray:
        """∂ -ln P(units[i] at step places[i]) / ∂ features: float32 [places, frames, mels].

        Args:
          features: [frames, mels] of one utterance.
          length: how many frames are valid.
          places: int32 [batch].
          units: int32 [batch].
        """
        rows = len(places)
        given = {"features": np.stack([features] * rows), "lengths": np.full(rows, length, "int32")}
        self.shift.assign(ops.zeros(self.shift.shape))
        self.train_on_batch(given, {"places": places, "units": units})
        return -ops.convert_to_numpy(self.shift)


def reach(
    network: SpeechModel, tokenizer: Tokenizer, utterances: Sequence[tuple[np.ndarray, str]], steps: int
) -> list[float]:
    """How far back the loss at a step reaches: the mean norm of its gradient, by distance in time.

    The loss at step T is -ln of the probability of the unit that is spoken there by the network's own forced
    alignment of the text. ‖∂ loss(T) / ∂ x(T - d)‖, of the features x of a step, is averaged over utterances
    and PLACES steps T of each (Pascanu et al. 2013, arXiv:1211.5063, have the states in place of features).

    Args:
      network: built, for samples. It can no longer be trained afterwards.
      utterances: samples and text of each.
      steps: the longest distance; utterances that are not longer, or too short for their text, are left out.

    Returns the mean norms for d = 0, 1, …, steps. Raises ValueError where no utterance is left.
    """
    inputs, _ = pad_batch([samples for samples, _ in utterances], [{}])
    features, frames = map(ops.convert_to_numpy, network.read(inputs["inputs"], inputs["lengths"]))
    outputs = network.predict_on_batch(inputs)
    taken = []
    for (_, text), x, length, logits, count in zip(
        utterances, features, frames, outputs["logits"], outputs["lengths"], strict=True
    ):
        log_probs = ops.convert_to_numpy(ops.log_softmax(logits[:count]))
        try:
            aligned = forced_align(log_probs, tokenizer.encode(tokenizer.normalize(text)))
        except ValueError:  # too short
            continue
        if len(log_probs) > steps:
            units = np.zeros(len(log_probs), "int32")  # the blank
            for unit, (first, last) in zip(aligned.units, aligned.steps, strict=True):
                units[first : last + 1] = unit
            taken.append((x[:length], units))
    if not taken:
        raise ValueError(f"no utterance has more than {steps} steps of {network.step_seconds:g} s")
    padded = pad([x for x, _ in taken], network.subsampling)
    gradient = InputGradient(network, (PLACES, *padded.shape[1:]))
    norms = []
    for features, (x, units) in zip(padded, taken, strict=True):
        places = np.linspace(steps, len(units) - 1, PLACES).round().astype("int32")
        found = gradient.of(features, len(x), places, units[places]).astype("float64")
        by_step = np.sqrt(np.square(found).reshape(PLACES, -1, network.subsampling * x.shape[1]).sum(axis=2))
        norms += [row[place - steps : place + 1][::-1] for row, place in zip(by_step, places, strict=True)]
    return np.mean(norms, axis=0).tolist()
