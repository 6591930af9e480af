"""Outputs of frozen encoders, computed once for all epochs."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from asr.model import SpeechModel
from training.cache import RaggedCache
from training.data import Batches


class FrozenEncoders(keras.Model):
    """The first encoders of a network."""

    def __init__(self, network: SpeechModel, encoders: int):
        super().__init__()
        self.network, self.encoders = network, encoders

    def call(self, inputs):
        x, lengths = self.network.read(inputs["inputs"], inputs["lengths"])
        return self.network.encode(x, lengths, slice(self.encoders))

    def digest(self) -> str:
        """Changes with any of their weights."""
        hashed = hashlib.sha256()
        for variable in (v for encoder in self.network.encoders[: self.encoders] for v in encoder.weights):
            hashed.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)))
        return hashed.hexdigest()


class EncodedSpeech:
    """Their outputs by utterance, in float16, computed once and kept in a folder.

    Args:
      batches: every utterance, in any order.
      folder: of the cache.
      content: says what the utterances are, in anything that JSON can write.
    """

    def __init__(
        self, frozen: FrozenEncoders, batches: Batches, folder: Path, content, progress: Callable = iter
    ):
        def outputs():
            for index in progress(range(len(batches))):
                encoded, lengths = frozen.predict_on_batch(batches[index][0])
                yield from (x[:steps].astype("float16") for x, steps in zip(encoded, lengths, strict=True))

        network = frozen.network
        description = [network.feature_options, network.descriptions[: frozen.encoders], frozen.digest()]
        self.cache = RaggedCache.create(folder, [description, content], outputs())
        self.position = np.argsort(np.concatenate(batches.plan))  # of each utterance in the cache
        self.lengths = self.cache.lengths[self.position]

    def read(self, utterance: int) -> np.ndarray:
        """float32 [steps, width]."""
        return self.cache[self.position[utterance]].astype("float32")
