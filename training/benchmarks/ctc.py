"""Time of a CTC loss with its gradient: ours, Keras' and, where PyTorch is installed, PyTorch's."""

import argparse
import importlib.util
import os
import time
from collections.abc import Callable

os.environ["KERAS_BACKEND"] = "tensorflow"  # the backend that keras.ops.ctc_loss is slow on
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from asr.ctc import ctc_loss
from asr.tokenizer import BLANK_ID


def main(options: argparse.Namespace) -> None:
    """Prints one table: milliseconds a call, and the ratio to Keras' own loss."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(options.batch, options.steps, options.units)).astype("float32")
    labels = random.integers(1, options.units, size=(options.batch, options.labels)).astype("int32")
    steps = np.full(options.batch, options.steps, dtype="int32")
    label_lengths = np.full(options.batch, options.labels, dtype="int32")

    def ours(x):
        return ctc_loss(x, steps, labels, label_lengths)

    def stock(x):
        return keras.ops.ctc_loss(labels, x, label_lengths, steps, mask_index=BLANK_ID)

    calls = {
        "keras.ops.ctc_loss": _tensorflow_call(stock, logits, jit_compile=False),
        "keras.ops.ctc_loss, XLA": _tensorflow_call(stock, logits, jit_compile=True),
        "asr.ctc": _tensorflow_call(ours, logits, jit_compile=False),
        "asr.ctc, XLA": _tensorflow_call(ours, logits, jit_compile=True),
    }
    if importlib.util.find_spec("torch"):
        calls["torch ctc_loss"] = _torch_call(logits, steps, labels, label_lengths)
    seconds = {name: _fastest(call, options.runs) for name, call in calls.items()}

    size = f"batch {options.batch} × {options.steps} steps × {options.labels} labels × {options.units} units"
    table = Table(title=f"CTC loss and gradient, {size}, {os.cpu_count()} cores")
    table.add_column("loss")
    table.add_column("ms", justify="right")
    table.add_column("times as fast", justify="right")
    for name, value in seconds.items():
        table.add_row(name, f"{1000 * value:.1f}", f"{seconds['keras.ops.ctc_loss'] / value:.1f}")
    Console().print(table)


def _tensorflow_call(loss: Callable, logits: np.ndarray, jit_compile: bool) -> Callable:
    @tf.function(jit_compile=jit_compile)
    def call(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(loss(x))
        return total, tape.gradient(total, x)

    x = tf.constant(logits)
    return lambda: call(x)[1].numpy()


def _torch_call(logits, steps, labels, label_lengths) -> Callable:
    import torch

    x = torch.tensor(logits, requires_grad=True)
    rest = [torch.tensor(value) for value in (labels, steps, label_lengths)]

    def call():
        x.grad = None
        log_probs = torch.log_softmax(x, dim=-1).transpose(0, 1)
        torch.nn.functional.ctc_loss(log_probs, *rest, blank=BLANK_ID, reduction="sum").backward()

    return call


def _fastest(call: Callable, runs: int) -> float:
    call()  # compiles
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
