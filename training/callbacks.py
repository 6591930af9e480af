"""What `fit` does besides fitting: exact resume, WER on dev sets, logs, a stop at the first NaN."""

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import keras
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from asr.decoding.greedy import greedy_decode
from asr.tokenizer import Tokenizer
from training.data import Batches

CHECKPOINT = "checkpoint.safetensors"


def save_state(path: Path, variables: Sequence, progress: dict) -> None:
    """All variables and where the run stands, in one file that is replaced at once."""
    # Not np.ascontiguousarray: it would give scalars a dimension.
    tensors = {f"{i}": np.asarray(keras.ops.convert_to_numpy(v), order="C") for i, v in enumerate(variables)}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"progress": json.dumps(progress)})
    os.replace(partial, path)


def load_state(path: Path, variables: Sequence) -> None:
    """Sets the variables from what `save_state` wrote."""
    with safe_open(path, "numpy") as file:
        if len(file.keys()) != len(variables):
            raise ValueError(f"{path}: holds {len(file.keys())} variables, the run has {len(variables)}")
        for i, variable in enumerate(variables):
            variable.assign(file.get_tensor(f"{i}"))


def load_progress(path: Path) -> dict:
    """Where a run stood when `save_state` wrote this file; its start where there is none."""
    if not path.exists():
        return {"epoch": 0, "batch": 0}
    with safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["progress"])


def state_of(model: keras.Model) -> list:
    """Everything that training changes: weights, random states, optimizer, metrics."""
    return [*model.variables, *model.optimizer.variables, *(v for m in model.metrics for v in m.variables)]


class ExactResume(keras.callbacks.Callback):
    """Saves the whole state every `steps` batches and at the end of each epoch.

    A run that goes on from there ends with the same weights as one that was never stopped: batches are a
    function of (seed, epoch, batch), and the optimizer, the random states and the running means are saved.

    Args:
      path: the checkpoint.
      steps: batches between two of them.
      batches: what is trained on; told which epoch begins, since Keras may end one twice.

    A checkpoint that is there is loaded as the first epoch begins: see `fit`.
    """

    def __init__(self, path: Path, steps: int, batches: Batches):
        super().__init__()
        self.path = path
        self.batches = batches
        self.steps = steps
        self.resume = path.exists()
        self.first_batch = load_progress(path)["batch"]
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.batches.start_at(epoch, self.first_batch)
        if self.resume:  # not before `fit`, which sets the running means to zero here
            load_state(self.path, state_of(self.model))
            self.resume = False

    def on_train_batch_end(self, batch, logs=None):
        done = self.first_batch + batch + 1
        if done % self.steps == 0 and batch + 1 < self.params["steps"]:  # the last one comes with the epoch
            save_state(self.path, state_of(self.model), {"epoch": self.epoch, "batch": done})

    def on_epoch_end(self, epoch, logs=None):
        self.first_batch = 0
        save_state(self.path, state_of(self.model), {"epoch": epoch + 1, "batch": 0})


def fit(
    model: keras.Model,
    batches: Batches,
    epochs: int,
    checkpoint: Path,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """`model.fit` from where the checkpoint stands, if there is one, to the last epoch.

    Args:
      model: compiled, its optimizer built.
      batches: of each epoch.
      epochs: in all.
      checkpoint: what ExactResume, which is to be among the callbacks, writes.
    """
    progress = load_progress(checkpoint)
    epoch = progress["epoch"]
    batches.start_at(epoch, progress["batch"])
    options = {"callbacks": callbacks, "verbose": 1 if sys.stderr.isatty() else 2, "shuffle": False}
    if epoch >= epochs:
        load_state(checkpoint, state_of(model))
    if progress["batch"]:  # the rest of the epoch in which the run was stopped
        model.fit(batches, initial_epoch=epoch, epochs=epoch + 1, **options)
        epoch += 1
        batches.start_at(epoch, 0)
    if epoch < epochs:
        model.fit(batches, initial_epoch=epoch, epochs=epochs, **options)


@dataclass(frozen=True)
class DevSet:
    """Batches of one dev set, and what is said in each of their utterances, in the same order."""

    name: str
    batches: keras.utils.PyDataset
    texts: list[str]


class WordErrorRate(keras.callbacks.Callback):
    """Greedy WER on each dev set after every epoch, into the logs as "wer_NAME" in percent."""

    def __init__(self, sets: Sequence[DevSet], tokenizer: Tokenizer):
        super().__init__()
        self.sets = sets
        self.tokenizer = tokenizer

    def on_epoch_end(self, epoch, logs=None):
        for dev in self.sets:
            heard = []
            for index in range(len(dev.batches)):
                inputs, _ = dev.batches[index]
                outputs = self.model.predict_on_batch(inputs)
                for logits, steps in zip(outputs["logits"], outputs["lengths"], strict=True):
                    heard.append(greedy_decode(logits[:steps], self.tokenizer).text)
            result = jiwer.process_words(dev.texts, heard)
            if logs is not None:
                logs[f"wer_{dev.name}"] = 100 * result.wer


class StopAtNaN(keras.callbacks.Callback):
    """Ends the run when the loss is no number any more; the last checkpoint is from before."""

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            raise FloatingPointError(
                f"the loss is {logs['loss']} at batch {batch}: resume with a lower learning rate"
            )


class MetricsLog(keras.callbacks.Callback):
    """One JSON object an epoch in metrics.jsonl: losses, WERs, seconds since the run began or was resumed."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.start = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch + 1, "seconds": round(time.monotonic() - self.start, 1)}
        row |= {name: round(float(value), 4) for name, value in (logs or {}).items()}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
