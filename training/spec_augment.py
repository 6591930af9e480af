"""SpecAugment: random masks on the features of an utterance."""

import keras
from keras import ops


class SpecAugment(keras.layers.Layer):
    """Zeros random frequency bands and time spans (SpecAugment, Park et al. 2019).

    Args:
      frequency_masks: number of frequency masks per utterance.
      frequency_width: maximum mask width in mels; widths are uniform in [0, frequency_width].
      time_masks: number of time masks per utterance.
      time_width: maximum mask width in frames; widths are uniform in [0, time_width].
      time_fraction: maximum mask width as a fraction of the utterance, in [0, 1].
      seed: of the layer's own random state.

    Call with features [batch, frames, mels] and lengths [batch] in frames; returns features of that shape.
    """

    def __init__(
        self,
        frequency_masks=2,
        frequency_width=27,
        time_masks=2,
        time_width=40,
        time_fraction=0.2,
        seed=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.frequency_masks = frequency_masks
        self.frequency_width = frequency_width
        self.time_masks = time_masks
        self.time_width = time_width
        self.time_fraction = time_fraction
        self.random = keras.random.SeedGenerator(seed)
        # There are no weights. While a layer is not built, `fit` on JAX draws a batch to build the model, and
        # begins the first epoch with what its workers read meanwhile: a batch is lost, others come twice.
        self.built = True

    def call(self, features, lengths):
        batch, frames, mels = ops.shape(features)
        lengths = ops.cast(lengths, "float32")
        all_mels = ops.full((batch,), mels, dtype="float32")
        longest = ops.minimum(float(self.time_width), self.time_fraction * lengths)
        widest = ops.full((batch,), float(min(self.frequency_width, mels)), dtype="float32")
        keep_time = self._keep(batch, frames, self.time_masks, longest, lengths)
        keep_mels = self._keep(batch, mels, self.frequency_masks, widest, all_mels)
        keep = ops.logical_and(keep_time[:, :, None], keep_mels[:, None, :])
        return ops.where(keep, features, ops.zeros_like(features))

    def _keep(self, batch, size, masks, widest, extent):
        """Bool [batch, size], False in `masks` random spans of up to `widest` [batch] in `extent` [batch]."""
        # The batch is first: then JAX draws the same for an utterance however many rows come after it.
        draws = keras.random.uniform((batch, masks, 2), seed=self.random, dtype="float32")
        widths = draws[..., 0] * widest[:, None]
        starts = draws[..., 1] * (extent[:, None] - widths)
        index = ops.cast(ops.arange(size), "float32")
        inside = ops.logical_and(index >= starts[..., None], index < (starts + widths)[..., None])
        return ops.logical_not(ops.any(inside, axis=1))
