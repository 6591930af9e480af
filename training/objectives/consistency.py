"""Agreement between two augmented views of each utterance."""

from keras import ops

from asr.encoders.subsampling import mask_padding
from training.objectives.objective import Objective


class Consistency(Objective):
    """KL divergence between two augmented views of each utterance.

    "CR-CTC: Consistency regularization on CTC for improved speech recognition" (Yao et al. 2025).
    """

    name = "consistency"
    views = 2

    def losses(self, outputs, targets):
        return consistency_losses(outputs["logits"], outputs["lengths"])


def consistency_losses(logits, lengths):
    """KL divergence from the other view's units, which get no gradient, summed over the steps; [batch].

    Args:
      logits: [batch, steps, units]; the second half of the batch holds the other views of the first.
      lengths: [batch] in steps.
    """
    log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    others = ops.stop_gradient(ops.concatenate(ops.split(log_probs, 2)[::-1]))
    divergences = mask_padding(ops.exp(others) * (others - log_probs), lengths)
    return ops.sum(divergences, axis=(1, 2))
