"""Callbacks of `fit`: exact resume, WER on dev sets, logs, a stop at the first NaN."""

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import keras
import numpy as np
import scipy.special
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from asr.decoding.greedy import greedy_decode
from asr.files import replacing
from asr.tokenizer import Tokenizer
from training.cache import fingerprint
from training.data import Batches

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"


class CheckpointError(ValueError):
    """One line: which checkpoint, what is wrong with it, what to do."""


def save_state(path: Path, variables: Sequence, progress: dict) -> None:
    """All variables and the progress of the run, in one file that is replaced at once. Raises OSError."""
    # Not np.ascontiguousarray: it would give scalars a dimension.
    tensors = {f"{i}": np.asarray(keras.ops.convert_to_numpy(v), order="C") for i, v in enumerate(variables)}
    try:
        with replacing(path) as partial:
            save_file(tensors, partial, metadata={"progress": json.dumps(progress)})
    except SafetensorError as error:  # that of the operating system, wrapped
        raise OSError(0, f"cannot be written: {error}", str(path)) from None


def load_state(path: Path, variables: Sequence) -> None:
    """Sets the variables from what `save_state` wrote. Raises CheckpointError where it is another model's."""
    with safe_open(path, "numpy") as file:
        shapes = [tuple(file.get_slice(f"{i}").get_shape()) for i in range(len(file.keys()))]
        if shapes != [tuple(variable.shape) for variable in variables]:
            raise CheckpointError(
                f"{path}: is of another model; resume with the model of config.yaml, or choose another output"
            )
        for i, variable in enumerate(variables):
            variable.assign(file.get_tensor(f"{i}"))


def load_progress(path: Path) -> dict:
    """The progress that `save_state` wrote; the start of a run where there is no file."""
    if not path.exists():
        return {"epoch": 0, "batch": 0, "plan": None}
    try:
        with safe_open(path, "numpy") as file:
            return json.loads(file.metadata()["progress"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); delete it to begin again") from None


def plan_of(batches: Batches) -> str:
    """Tells whether an epoch has the same utterances in the same batches as before."""
    return fingerprint([utterances.tolist() for utterances in batches.plan])


def state_of(model: keras.Model) -> list:
    """All that training changes: weights, random states, optimizer, metrics."""
    return [*model.variables, *model.optimizer.variables, *(v for m in model.metrics for v in m.variables)]


class ExactResume(keras.callbacks.Callback):
    """Saves the whole state every `steps` batches and at the end of each epoch; loads it as `fit` begins.

    A resumed run ends with the same weights as one that was never stopped: batches are a function of (seed,
    epoch, batch), and weights, optimizer, random states and running means are saved. A checkpoint never holds
    weights that are not finite.

    Args:
      path: the checkpoint.
      steps: batches between two of them.
      batches: at the place that `go_on` found; told which epoch begins, since Keras may end one twice.
      saves: False in all but one of several processes with the same state.
    """

    def __init__(self, path: Path, steps: int, batches: Batches, saves: bool = True):
        super().__init__()
        self.path, self.steps, self.batches, self.saves = path, steps, batches, saves
        self.resume = path.exists()
        self.epoch, self.first_batch = batches.epoch, batches.first_batch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.batches.start_at(epoch, self.first_batch)
        if self.resume:  # not before `fit`, which sets the running means to zero here
            load_state(self.path, state_of(self.model))
            self.resume = False
            if not self.first_batch:  # the saved running means are those of the epoch before
                self.model.reset_metrics()

    def on_train_batch_end(self, batch, logs=None):
        done = self.first_batch + batch + 1
        if done % self.steps == 0 and batch + 1 < self.params["steps"]:  # the last one comes with the epoch
            self._save({"epoch": self.epoch, "batch": done, "plan": plan_of(self.batches)})

    def on_epoch_end(self, epoch, logs=None):
        self.first_batch = 0
        self._save({"epoch": epoch + 1, "batch": 0, "plan": None})

    def _save(self, progress: dict) -> None:
        check_weights(self.model)
        if self.saves:
            save_state(self.path, state_of(self.model), progress)


def go_on(batches: Batches, checkpoint: Path) -> None:
    """Moves the batches to where the checkpoint stopped; if they are others, to the start of its epoch."""
    progress = load_progress(checkpoint)
    batches.start_at(progress["epoch"], 0)
    if progress["batch"] and plan_of(batches) == progress["plan"]:
        batches.start_at(progress["epoch"], progress["batch"])
    elif progress["batch"]:
        epoch = progress["epoch"] + 1
        print(f"{checkpoint}: resumed with other batches: epoch {epoch} begins again", file=sys.stderr)


def fit(model: keras.Model, batches: Batches, epochs: int, checkpoint: Path, callbacks: Sequence) -> None:
    """`model.fit` from the checkpoint, if there is one, to the last epoch.

    Args:
      model: compiled, its optimizer built.
      batches: of each epoch, at the place that `go_on` found.
      epochs: in all.
      checkpoint: what ExactResume, which is to be among the callbacks, writes.
    """
    epoch = batches.epoch
    options = {"callbacks": callbacks, "verbose": 1 if sys.stderr.isatty() else 2, "shuffle": False}
    if epoch >= epochs:
        load_state(checkpoint, state_of(model))
    if batches.first_batch:  # the rest of the epoch in which the run was stopped
        model.fit(batches, initial_epoch=epoch, epochs=epoch + 1, **options)
        epoch += 1
        batches.start_at(epoch, 0)
    if epoch < epochs:
        model.fit(batches, initial_epoch=epoch, epochs=epochs, **options)


@dataclass(frozen=True)
class DevSet:
    """Batches of one dev set, and the texts of their utterances in the same order.

    prompt: tokens before each text that the decoder is given; 0 where the batches have no tokens.
    """

    name: str
    batches: keras.utils.PyDataset
    texts: list[str]
    prompt: int = 0


class WordErrorRate(keras.callbacks.Callback):
    """Greedy WER on each dev set after every epoch, into the logs as "wer_NAME" in percent.

    Of a decoder that the dev set has tokens for, also its cross-entropy as "nats_NAME", in nats a token.
    """

    def __init__(self, sets: Sequence[DevSet], tokenizer: Tokenizer):
        super().__init__()
        self.sets, self.tokenizer = sets, tokenizer

    def on_epoch_end(self, epoch, logs=None):
        for dev in self.sets:
            texts, nats = [], []
            for index in range(len(dev.batches)):
                inputs, targets = dev.batches[index]
                outputs = self.model.predict_on_batch(inputs)
                for logits, steps in zip(outputs["logits"], outputs["lengths"], strict=True):
                    texts.append(greedy_decode(logits[:steps], self.tokenizer).text)
                if dev.prompt:
                    lengths = targets["tokens_lengths"]
                    for logits, tokens, count in zip(
                        outputs["token_logits"], targets["tokens"], lengths, strict=True
                    ):
                        nats += token_nats(logits, tokens[:count], dev.prompt).tolist()
            logs[f"wer_{dev.name}"] = 100 * jiwer.wer(dev.texts, texts)
            if nats:
                logs[f"nats_{dev.name}"] = float(np.mean(nats))


def token_nats(logits: np.ndarray, tokens: np.ndarray, prompt: int) -> np.ndarray:
    """Cross-entropy of each token behind the prompt, given the right ones before it.

    Args:
      logits: [positions, vocabulary], at i of token i + 1.
      tokens: [tokens] of a whole text; none give an empty result.
    """
    expected = tokens[prompt:]
    scores = scipy.special.log_softmax(logits[prompt - 1 :][: len(expected)].astype("float32"), axis=1)
    return -scores[np.arange(len(expected)), expected]


class BestEpoch(keras.callbacks.Callback):
    """Keeps the weights of the best epoch: that with the lowest cross-entropy of the decoder, or WER.

    Several dev sets count alike. The decoder comes first, since it is what learns texts by heart while WER of
    the CTC head still falls. It is to be called after WordErrorRate, and before ExactResume: an epoch that is
    in the checkpoint has been compared.

    Args:
      path: of the weights; what is there counts.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        score = np.mean(
            [logs[name] for name in logs if name.startswith("nats_")]
            or [logs[name] for name in logs if name.startswith("wer_")]
        )
        if not self.path.exists() or score < load_progress(self.path)["score"]:
            progress = {"epoch": epoch + 1, "score": float(score)}
            save_state(self.path, self.model.network.weights, progress)


class StopAtNaN(keras.callbacks.Callback):
    """Ends the run when the loss or the weights are not finite; the last checkpoint is from before."""

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"the loss is {logs['loss']} at batch {batch}: resume with a lower learning rate"
            )

    def on_epoch_end(self, epoch, logs=None):
        check_weights(self.model)


def check_weights(model: keras.Model) -> None:
    """Raises FloatingPointError where a weight is not finite."""
    for variable in model.trainable_variables:
        if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
            raise FloatingPointError(f"{variable.path} is not finite: resume with a lower learning rate")


class MetricsLog(keras.callbacks.Callback):
    """One JSON object an epoch in metrics.jsonl: losses, WERs, seconds since the run began or was resumed."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.start = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch + 1, "seconds": round(time.monotonic() - self.start, 1)}
        row |= {name: round(float(value), 4) for name, value in logs.items()}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
