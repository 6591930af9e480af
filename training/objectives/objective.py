"""The interface of a part of the loss."""

from abc import ABC, abstractmethod

import keras
import numpy as np


class Objective(ABC):
    """A part of the loss, with the targets that it compares the network's outputs with.

    Attributes:
      name: of its mean in the logs.
      weight: in the loss of the run.
      views: augmented copies of each utterance that it needs; those of a batch follow each other.
      metrics: what it logs besides the loss; the first is its own mean.
    """

    name: str
    views = 1

    def __init__(self, weight: float):
        self.weight = weight
        self.metrics = [keras.metrics.Mean(name=self.name)]

    def targets(self, utterance: int, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """What an utterance of the training set is compared with, by name: arrays [length, ...].

        Args:
          utterance: its index.
          inputs: what the network is given of it, augmented.
        """
        return {}

    @abstractmethod
    def losses(self, outputs: dict, targets: dict):
        """The loss of each utterance, float32 [batch]; an infinite one is left out of the mean.

        Args:
          outputs: of the network.
          targets: of all objectives, padded with zeros to [batch, length, ...], and under NAME_lengths their
            lengths, [batch]. Where there are "weights" [batch], rows of weight 0 only fill up the batch.
        """
