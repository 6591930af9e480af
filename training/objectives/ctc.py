"""The CTC loss of the transcripts."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from asr.ctc import ctc_loss
from training.objectives.objective import Objective


class CTC(Objective):
    """Connectionist temporal classification (Graves et al. 2006).

    Utterances that cannot be aligned, since they have fewer steps than their text needs, are left out of the
    mean; "unaligned" in the logs is the fraction of such.

    Args:
      labels: unit ids of each utterance, without blanks.
    """

    name = "ctc"

    def __init__(self, labels: Sequence[Sequence[int]], weight: float = 1.0):
        super().__init__(weight)
        self.labels = labels
        self.unaligned = keras.metrics.Mean(name="unaligned")
        self.metrics.append(self.unaligned)

    def targets(self, utterance, inputs):
        return {"labels": np.array(self.labels[utterance], dtype="int32")}

    def losses(self, outputs, targets):
        losses = ctc_loss(outputs["logits"], outputs["lengths"], targets["labels"], targets["labels_lengths"])
        self.unaligned.update_state(ops.cast(ops.isinf(losses), "float32"), targets.get("weights"))
        return losses
