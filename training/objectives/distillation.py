"""Learning from a larger model."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from keras import ops

from asr.bundle import Bundle, weights_digest, weights_path
from asr.engine import Engine
from asr.model import SpeechModel
from asr.tokenizer import Tokenizer
from training.cache import RaggedCache
from training.config import ConfigError
from training.objectives.objective import Objective
from training.speech import Speech


class Distillation(Objective):
    """Cross-entropy with a teacher's probabilities of the units at each step (Hinton et al. 2015).

    Utterances that augmentation makes shorter or longer have no such targets, since the steps do not fit,
    and a loss of 0.

    Args:
      probabilities: of each utterance, [steps, units], by the teacher.
      lengths: of each utterance's inputs as the teacher got them.
    """

    name = "distillation"

    def __init__(self, probabilities: Sequence[np.ndarray], lengths: Sequence[int], weight: float):
        super().__init__(weight)
        self.probabilities, self.lengths = probabilities, lengths

    def targets(self, utterance, inputs):
        probabilities = self.probabilities[utterance]
        fits = len(inputs) == self.lengths[utterance]
        return {"teacher": probabilities if fits else probabilities[:0]}

    def losses(self, outputs, targets):
        return soft_losses(outputs["logits"], targets["teacher"])


def soft_losses(logits, probabilities):
    """Cross-entropy with a teacher's probabilities, summed over the steps; [batch].

    Args:
      logits: [batch, steps, units].
      probabilities: [batch, teacher's steps, units], zeros beyond each utterance's end. Steps that only one
        of the two has do not count.
    """
    # Two slices, not one up to the smaller length: compiled by JAX, that minimum is no Python number.
    probabilities = probabilities[:, : ops.shape(logits)[1]]
    logits = logits[:, : ops.shape(probabilities)[1]]
    return -ops.sum(probabilities * ops.log_softmax(ops.cast(logits, "float32"), axis=-1), axis=(1, 2))


def teacher_probabilities(
    source: Path, network: SpeechModel, tokenizer: Tokenizer, parts: Sequence[Speech], folder: Path, progress
) -> RaggedCache:
    """A teacher's probabilities of every utterance, float16 [steps, units], computed once.

    Raises ConfigError for a teacher with other units or steps.
    """
    teacher = Bundle.load(source)
    same_steps = math.isclose(teacher.step_seconds, network.step_seconds)
    if teacher.tokenizer.symbols != tokenizer.symbols or not same_steps:
        raise ConfigError(
            f"{source}: has {teacher.tokenizer.size} units and steps of {teacher.step_seconds:g} s; it "
            f"cannot teach a model of {tokenizer.size} units and steps of {network.step_seconds:g} s"
        )
    engine = Engine.load(teacher)

    utterances = [(part, i) for part in parts for i in range(len(part))]
    probabilities = (np.exp(engine.log_probs(part[i])).astype("float16") for part, i in progress(utterances))
    content = [weights_digest(weights_path(teacher.directory)), *(part.key for part in parts)]
    return RaggedCache.create(folder, content, probabilities)
