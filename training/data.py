"""Padded batches, bucketed by length.

Batch i of an epoch is a function of (seed, epoch, i): that makes exact resume and sharding simple.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

BUCKET_SECONDS = 1.0  # range of the lengths in a bucket
# JAX compiles once for each shape: there, inputs are padded to the end of a bucket, targets to a larger
# multiple, so that many batches have the same shape.
PAD_TARGETS, PAD_TARGETS_COMPILED = 8, 32
# A training step takes half a minute to compile on a GPU: where all batches of a bucket shall have one shape,
# the buckets are wider.
ONE_SHAPE_SECONDS = 5.0


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

    def rows(self, count: int) -> np.ndarray:
        """Numbers of its rows in a batch of so many, filled up to a multiple of the devices."""
        each = -(-count // self.devices) * self.devices // self.processes
        return np.arange(self.process * each, (self.process + 1) * each)


@dataclass(frozen=True)
class Bucket:
    """Utterances of similar length.

    Attributes:
      utterances: their indices.
      rows: of a batch, at most.
      sizes: to which the inputs and targets of every batch are padded, by name, if all have one shape.
    """

    utterances: np.ndarray
    rows: int
    sizes: dict[str, int]


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
      one_shape: on JAX, all batches of a bucket have one shape. A batch is filled up by its last utterance:
        the target "weights" [batch] is 1 for rows that count, 0 for those that fill up.
      share: of each batch; several devices need `one_shape`.

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
        one_shape: bool = False,
        share: Share = Share(),
    ):
        super().__init__(workers=workers, max_queue_size=8)
        self.read, self.targets, self.seed, self.share = read, targets, seed, share
        self.lengths, self.longest = lengths, lengths if longest is None else longest
        self.epoch = self.first_batch = 0
        self.one_shape = one_shape
        compiled = keras.backend.backend() == "jax"
        self.pad_inputs = max(1, round(rate * BUCKET_SECONDS)) if compiled else 2
        self.pad_targets = PAD_TARGETS_COMPILED if compiled else PAD_TARGETS
        bucket_seconds = ONE_SHAPE_SECONDS if one_shape else BUCKET_SECONDS
        self.bucket_of = np.maximum(np.ceil(np.asarray(lengths) / rate / bucket_seconds), 1).astype(int)
        self.buckets = {}  # by number, from short to long
        for number in np.unique(self.bucket_of):
            utterances = np.flatnonzero(self.bucket_of == number)
            rows = min(len(utterances), max(1, int(batch_seconds // (number * bucket_seconds))))
            self.buckets[number] = Bucket(utterances, rows, self._sizes(utterances) if one_shape else {})
        self.plan = self._plan()

    def _sizes(self, utterances: Sequence[int]) -> dict[str, int]:
        """The greatest length that inputs and targets of these utterances can have."""
        sizes = {"inputs": max(int(self.longest[i]) for i in utterances)}
        for i in utterances:
            for name, target in self.targets(i, np.empty((int(self.lengths[i]), 0), "float32")).items():
                sizes[name] = max(sizes.get(name, 0), len(target))
        return sizes

    def _plan(self) -> list[np.ndarray]:
        """The utterances of each batch of this epoch."""
        random = None if self.seed is None else np.random.default_rng([self.seed, self.epoch])
        batches = []
        for bucket in self.buckets.values():
            order = bucket.utterances if random is None else random.permutation(bucket.utterances)
            batches += [order[i : i + bucket.rows] for i in range(0, len(order), bucket.rows)]
        if random is not None:
            batches = [batches[i] for i in random.permutation(len(batches))]
        return batches

    def __len__(self) -> int:
        return len(self.plan) - self.first_batch

    def __getitem__(self, index: int):
        index += self.first_batch
        utterances = [int(i) for i in self.plan[index]]
        bucket = self.buckets[self.bucket_of[utterances[0]]]
        rows = self.share.rows(bucket.rows if self.one_shape else len(utterances))
        read = [utterances[min(row, len(utterances) - 1)] for row in rows]
        # An utterance has the same randomness in whichever process it is read.
        inputs = [self.read(i, np.random.default_rng([self.seed or 0, self.epoch, i])) for i in read]
        targets = [self.targets(i, x) for i, x in zip(read, inputs, strict=True)]
        # On TensorFlow, Keras takes each dimension in which the first two batches agree to be fixed: even and
        # odd batches never agree.
        odd = index % 2 == 1 and keras.backend.backend() == "tensorflow"
        given, padded = pad_batch(inputs, targets, odd, self.pad_inputs, self.pad_targets, bucket.sizes)
        if self.one_shape:
            padded["weights"] = (rows < len(utterances)).astype("float32")
        return given, padded

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
