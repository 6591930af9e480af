"""What every single step of a training run did: its time, its loss, and the norm of its gradient."""

import json
import time
from pathlib import Path

import keras
import numpy as np
from keras import ops

from training.optimizer import ScaledAdamW


class MeasuredAdamW(ScaledAdamW):
    """Keeps the norm of the last step's gradient, as it is before clipping."""

    def build(self, variables):
        super().build(variables)
        self.gradient_norm = self.add_variable((), name="gradient_norm")

    def apply(self, grads, trainable_variables=None):
        squares = [
            ops.sum(ops.square(ops.convert_to_tensor(gradient))) for gradient in grads if gradient is not None
        ]
        self.gradient_norm.assign(ops.sqrt(sum(squares)))
        return super().apply(grads, trainable_variables)


class StepLog(keras.callbacks.Callback):
    """One JSON object a training step: its number, seconds, loss, and with MeasuredAdamW its gradient's norm.

    Args:
      path: of a file to write to; steps that a resumed run repeats are in it twice, the last one counts.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def _totals(self) -> np.ndarray:
        mean = self.model.metrics[0]  # Keras' running mean of the loss
        return np.array([float(mean.total), float(mean.count)])

    def on_train_batch_begin(self, batch, logs=None):
        self.before, self.began = self._totals(), time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        seconds = time.perf_counter() - self.began
        total, count = self._totals() - self.before
        optimizer = self.model.optimizer
        row = {"step": int(optimizer.iterations), "seconds": round(seconds, 4), "loss": total / count}
        if isinstance(optimizer, MeasuredAdamW):
            row["gradient_norm"] = float(optimizer.gradient_norm)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def step_milliseconds(rows: list[dict]) -> float:
    """The lower quartile of the steps' times: other work on the machine can only make a step slower."""
    return 1000 * float(np.quantile([row["seconds"] for row in rows], 0.25))


def read_log(path: Path, key: str) -> list[dict]:
    """The rows of a file of JSON lines by a number, such as "step"; of equal ones the last."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [row for _, row in sorted({row[key]: row for row in rows}.items())]
