"""Padded batches, bucketed by length.

Batch i of an epoch is a function of (seed, epoch, i): that makes exact resume and sharding simple.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

BUCKET_SECONDS = 1.0  # range of the lengths in a bucket
# JAX compiles once for each shape: there, inputs are padded to the end of a bucket, targets to a larger
# multiple, so that many batches have the same shape. It is that of the longest inputs and targets that the
# utterances can have: each of several processes reads some of the rows only, and all need the same shape.
PAD_TARGETS, PAD_TARGETS_COMPILED = 8, 32


@dataclass(frozen=True)
class Share:
    """The rows of every batch that this process reads: all, or those of its devices among the devices of all.

    Attributes:
      process: number of this process, from 0.
      processes: how many there are, with the same number of devices each.
      devices: of all processes together.
    """

    process: int = 0
    processes: int = 1
    devices: int = 1

    def rows(self, utterances: int) -> np.ndarray:
        """Row numbers in a batch of so many utterances, filled up to a multiple of the devices."""
        each = -(-utterances // self.devices) * self.devices // self.processes
        return np.arange(self.process * each, (self.process + 1) * each)


class Batches(keras.utils.PyDataset):
    """Padded batches for `model.fit` and `model.predict`.

    Each epoch shuffles the utterances within buckets of similar length, cuts the buckets into batches and
    shuffles those. The number of batches is the same in every epoch.

    Args:
      lengths: [utterances], of the inputs, in samples or frames.
      read: (utterance, random generator) → its inputs [length] or [length, width]; may augment.
      rate: samples or frames a second.
      batch_seconds: padded length of a batch; at least one utterance goes into each.
      seed: of order and augmentation; None keeps one order, from short to long buckets, and one randomness.
      targets: (utterance, its inputs) → arrays [length, ...] by name. Their lengths depend on nothing of the
        inputs but the length, and are greatest where that is the utterance's own.
      longest: [utterances], of what `read` can return; the same as `lengths` if None.
      share: of each batch. Several devices need the same number of rows each: the last utterance fills up the
        batch, and the target "weights" [batch] is 1 for rows that count, 0 for those that fill up.

    Yields ({"inputs", "lengths"}, targets), where each target NAME comes with NAME_lengths. Targets named
    "tokens" are inputs, too: a decoder is given the right tokens before the one that it predicts.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        read: Callable[[int, np.random.Generator], np.ndarray],
        rate: float,
        batch_seconds: float,
        seed: int | None = None,
        workers: int = 1,
        targets: Callable[[int, np.ndarray], dict[str, np.ndarray]] = lambda utterance, inputs: {},
        longest: np.ndarray | None = None,
        share: Share = Share(),
    ):
        super().__init__(workers=workers, max_queue_size=8)
        self.read, self.targets, self.seed, self.share = read, targets, seed, share
        self.lengths, self.longest = lengths, lengths if longest is None else longest
        self.epoch = self.first_batch = 0
        bucket_of = np.ceil(np.asarray(lengths) / rate / BUCKET_SECONDS).astype(int)
        # Utterances and batch size of each bucket, from short to long.
        self.buckets = [
            (np.flatnonzero(bucket_of == b), max(1, int(batch_seconds // (max(b, 1) * BUCKET_SECONDS))))
            for b in np.unique(bucket_of)
        ]
        self.compiled = keras.backend.backend() == "jax"
        self.pad_inputs = max(1, round(rate * BUCKET_SECONDS)) if self.compiled else 2
        self.pad_targets = PAD_TARGETS_COMPILED if self.compiled else PAD_TARGETS
        self.plan = self._plan()

    def _plan(self) -> list[np.ndarray]:
        """The utterances of each batch of this epoch."""
        random = None if self.seed is None else np.random.default_rng([self.seed, self.epoch])
        batches = []
        for bucket, size in self.buckets:
            order = bucket if random is None else random.permutation(bucket)
            batches += [order[i : i + size] for i in range(0, len(order), size)]
        if random is not None:
            batches = [batches[i] for i in random.permutation(len(batches))]
        return batches

    def __len__(self) -> int:
        return len(self.plan) - self.first_batch

    def __getitem__(self, index: int):
        index += self.first_batch
        utterances = [int(i) for i in self.plan[index]]
        rows = self.share.rows(len(utterances))
        read = [utterances[min(row, len(utterances) - 1)] for row in rows]
        # An utterance has the same randomness in whichever process it is read.
        inputs = [self.read(i, np.random.default_rng([self.seed or 0, self.epoch, i])) for i in read]
        targets = [self.targets(i, x) for i, x in zip(read, inputs, strict=True)]
        # On TensorFlow, Keras takes each dimension in which the first two batches agree to be fixed: even and
        # odd batches never agree.
        odd = index % 2 == 1 and keras.backend.backend() == "tensorflow"
        sizes = self._longest(utterances) if self.compiled else {}
        given, padded = pad_batch(inputs, targets, odd, self.pad_inputs, self.pad_targets, sizes)
        if self.share.devices > 1:
            padded["weights"] = (rows < len(utterances)).astype("float32")
        return given, padded

    def _longest(self, utterances: Sequence[int]) -> dict[str, int]:
        """The greatest length that inputs and targets of these utterances can have."""
        sizes = {"inputs": max(int(self.longest[i]) for i in utterances)}
        for i in utterances:
            for name, target in self.targets(i, np.empty((int(self.lengths[i]), 0), "float32")).items():
                sizes[name] = max(sizes.get(name, 0), len(target))
        return sizes

    def start_at(self, epoch: int, batch: int) -> None:
        """Continues with this batch of this epoch, after a resume."""
        self.epoch, self.first_batch = epoch, batch
        self.plan = self._plan()

    def on_epoch_end(self):
        self.start_at(self.epoch + 1, 0)


def pad_batch(
    inputs: Sequence[np.ndarray],
    targets: Sequence[dict],
    odd: bool = False,
    pad_inputs: int = 2,
    pad_targets: int = PAD_TARGETS,
    sizes: Mapping[str, int] | None = None,
):
    """({"inputs", "lengths", perhaps "tokens"}, {NAME, NAME_lengths} of each target) with zeros at the ends.

    Inputs are padded to a multiple of `pad_inputs`, targets of `pad_targets`; both to one more if `odd`. What
    is shorter than its size in `sizes` is padded as if it had that length.
    """
    padded, sizes = {}, sizes or {}
    for name in targets[0]:
        arrays = [target[name] for target in targets]
        padded[name] = pad(arrays, pad_targets, odd, sizes.get(name, 1))
        padded[f"{name}_lengths"] = _lengths(arrays)
    given = {"inputs": pad(inputs, pad_inputs, odd, sizes.get("inputs", 1)), "lengths": _lengths(inputs)}
    if "tokens" in padded:
        given["tokens"] = padded["tokens"]
    return given, padded


def pad(arrays: Sequence[np.ndarray], multiple: int, odd: bool = False, size: int = 1) -> np.ndarray:
    """[arrays, length, ...] with zeros at the ends; int32 of int32, else float32.

    The length is the longest one, and at least `size` and 1, rounded up to a multiple, and one more if `odd`.
    """
    longest = -(-max(1, size, *map(len, arrays)) // multiple) * multiple
    dtype = "int32" if arrays[0].dtype == np.int32 else "float32"
    padded = np.zeros((len(arrays), longest + odd, *arrays[0].shape[1:]), dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded


def _lengths(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([len(array) for array in arrays], dtype="int32")
