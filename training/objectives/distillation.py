"""Learning from a larger model."""

from collections.abc import Sequence

import numpy as np
from keras import ops

from training.objectives.objective import Objective


class Distillation(Objective):
    """Cross-entropy with a teacher's probabilities of the units at each step (Hinton et al. 2015).

    Speed-perturbed utterances have no such targets, since the teacher's steps do not fit, and a loss of 0.

    Args:
      probabilities: of each utterance, [steps, units], by the teacher.
      lengths: of each utterance's inputs as the teacher got them.
    """

    name = "distillation"

    def __init__(self, probabilities: Sequence[np.ndarray], lengths: Sequence[int], weight: float):
        super().__init__(weight)
        self.probabilities = probabilities
        self.lengths = lengths

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
