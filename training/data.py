"""From manifests to batches: decoded once, bucketed by length, padded.

Batch i of an epoch is a function of (seed, epoch, i): that makes exact resume and sharding simple.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np

from asr.audio import SAMPLE_RATE, AudioError
from training.cache import Ragged
from training.manifest import Entry
from training.recordings import decode_entries

INT16_SCALE = 32767
BUCKET_SECONDS = 1.0  # utterances of equal length up to this share a bucket
# Labels, and a teacher's steps, are padded to a multiple; on JAX, which compiles anew for each shape, inputs
# to the end of their bucket besides: without, hardly two batches would have the same.
PAD_LABELS = 32
PAD_STEPS = 25


def decode_audio(
    entries: Sequence[Entry], folder: Path, progress: Callable[[Iterable], Iterable] = iter
) -> Ragged:
    """The sound of all entries as int16 samples, decoded once and kept in `folder`."""
    key = fingerprint(
        [(entry.id, str(entry.audio), entry.offset_seconds, entry.duration_seconds) for entry in entries]
    )

    def decoded() -> Iterator[np.ndarray]:
        for _, samples in zip(progress(entries), decode_entries(entries), strict=False):
            if isinstance(samples, AudioError):
                raise samples
            yield to_int16(samples)

    return Ragged.create(folder, key, decoded())


def to_int16(samples: np.ndarray) -> np.ndarray:
    return np.round(np.clip(samples, -1, 1) * INT16_SCALE).astype("int16")


def to_float(samples: np.ndarray) -> np.ndarray:
    """float32 in [-1, 1] from the int16 samples of `decode_audio`."""
    return samples.astype("float32") / INT16_SCALE


def fingerprint(content) -> str:
    """Short name of anything that JSON can write."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class Batches(keras.utils.PyDataset):
    """Padded batches for `model.fit` and `model.predict`.

    Each epoch shuffles the utterances within buckets of similar length, cuts the buckets into batches and
    shuffles those. The number of batches is the same in every epoch.

    Args:
      lengths: [utterances], of the inputs, in samples or frames.
      read: (utterance, random generator) → its inputs [length] or [length, width]; may augment.
      labels: unit ids of each utterance.
      rate: samples or frames a second.
      batch_seconds: padded length of a batch; at least one utterance goes into each.
      seed: of order and augmentation; None keeps one order, from short to long buckets, and one randomness.
      targets: utterance → a teacher's probabilities of it [steps, units], or None; left out where the inputs
        have another length than it heard.

    Yields ({"inputs", "lengths"}, {"labels", "label_lengths"}), with "targets" in the second where there are.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        read: Callable[[int, np.random.Generator], np.ndarray],
        labels: Sequence[Sequence[int]],
        rate: float,
        batch_seconds: float,
        seed: int | None = None,
        workers: int = 1,
        targets: Callable[[int], np.ndarray] | None = None,
    ):
        super().__init__(workers=workers, max_queue_size=8)
        self.read = read
        self.labels = labels
        self.lengths = lengths
        self.seed = seed
        self.targets = targets
        self.epoch = 0
        self.first_batch = 0
        buckets = np.ceil(np.asarray(lengths) / rate / BUCKET_SECONDS).astype(int)
        self.buckets = [np.flatnonzero(buckets == bucket) for bucket in np.unique(buckets)]
        self.sizes = [max(1, int(batch_seconds // (max(b, 1) * BUCKET_SECONDS))) for b in np.unique(buckets)]
        compiled = keras.backend.backend() == "jax"
        self.pad_inputs = max(1, round(rate * BUCKET_SECONDS)) if compiled else 2
        self.plan = self._plan()

    def _plan(self) -> list[np.ndarray]:
        """The utterances of each batch of this epoch."""
        random = None if self.seed is None else np.random.default_rng([self.seed, self.epoch])
        batches = []
        for bucket, size in zip(self.buckets, self.sizes, strict=True):
            order = bucket if random is None else random.permutation(bucket)
            batches += [order[i : i + size] for i in range(0, len(order), size)]
        if random is not None:
            batches = [batches[i] for i in random.permutation(len(batches))]
        return batches

    def __len__(self) -> int:
        return len(self.plan) - self.first_batch

    def __getitem__(self, index: int):
        index += self.first_batch
        utterances = self.plan[index]
        random = np.random.default_rng([self.seed or 0, self.epoch, index])
        inputs = [self.read(int(i), random) for i in utterances]
        # On TensorFlow, Keras takes each dimension in which the first two batches agree to be fixed: even and
        # odd batches never agree.
        odd = index % 2 == 1 and keras.backend.backend() == "tensorflow"
        batch = pad_batch(inputs, [self.labels[i] for i in utterances], odd, self.pad_inputs)
        if self.targets is not None:
            targets = [self._targets_of(int(i), x) for i, x in zip(utterances, inputs, strict=True)]
            batch[1]["targets"] = pad(targets, PAD_STEPS, odd)
        return batch

    def _targets_of(self, utterance: int, inputs: np.ndarray) -> np.ndarray:
        targets = self.targets(utterance)
        return targets if len(inputs) == self.lengths[utterance] else targets[:0]

    def start_at(self, epoch: int, batch: int) -> None:
        """Goes on with this batch of this epoch, after a resume."""
        self.epoch = epoch
        self.first_batch = batch
        self.plan = self._plan()

    def on_epoch_end(self):
        self.start_at(self.epoch + 1, 0)


def pad_batch(
    inputs: Sequence[np.ndarray], labels: Sequence[Sequence[int]], odd: bool = False, multiple: int = 2
):
    """({"inputs", "lengths"}, {"labels", "label_lengths"}) with zeros at the ends.

    Inputs are padded to a multiple of `multiple`, labels of PAD_LABELS; both to one more if `odd`.
    """
    return (
        {"inputs": pad(inputs, multiple, odd), "lengths": _lengths(inputs)},
        {
            "labels": pad([np.array(ids, dtype="int32") for ids in labels], PAD_LABELS, odd),
            "label_lengths": _lengths(labels),
        },
    )


def pad(arrays: Sequence[np.ndarray], multiple: int, odd: bool = False) -> np.ndarray:
    """[arrays, length, ...] with zeros at the ends; int32 of int32, else float32.

    The length is the longest one, and at least 1, rounded up to a multiple, and one more if `odd`.
    """
    longest = -(-max(1, *map(len, arrays)) // multiple) * multiple
    dtype = "int32" if arrays[0].dtype == np.int32 else "float32"
    padded = np.zeros((len(arrays), longest + odd, *arrays[0].shape[1:]), dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded


def _lengths(sequences: Sequence) -> np.ndarray:
    return np.array([len(sequence) for sequence in sequences], dtype="int32")


def speech_seconds(lengths: np.ndarray, rate: float = SAMPLE_RATE) -> float:
    """Total duration of utterances of these lengths."""
    return float(np.sum(lengths)) / rate
