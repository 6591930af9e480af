"""How fast this machine trains, and on what the time goes; PyTorch's LSTM beside ours, where it is installed.

    python -m training.benchmark training

The utterances are noise, so that it runs anywhere: with the same shapes real speech takes the same time. Each
model runs in a process of its own, so that its memory is known.
"""

import argparse
import importlib.util
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from keras import ops

from asr.audio import SAMPLE_RATE
from asr.bundle import Bundle
from asr.encoders.recurrent import RecurrentEncoder
from asr.model import SpeechModel
from training.augmentation import augment
from training.data import Batches
from training.objectives import CTC, Attention, Objective
from training.scoring.console import table
from training.step import TrainingStep

SENTENCE = "The boy was there when the sun rose, and the quick brown fox was not. "
SENTENCE_SECONDS = 5.0
STEPS = 5  # that are measured, after as many that are not
READERS = 2  # threads, as in training
AUGMENTATION = {"speed": 0.4, "noise": 0.3, "reverb": 0.2, "telephone": 0.1, "gain": 0.5, "silence": 0.0}
TRANSFORMER = {"type": "transformer", "width": 384, "layers": 4, "heads": 6, "subsampling": 2}
LSTM = {"type": "recurrent", "cell": "lstm", "width": 320, "layers": 2}
MODELS: dict[str, dict[str, Any]] = {
    "recurrent": {"encoders": [LSTM | {"stack": 4}]},
    "transformer": {"encoders": [TRANSFORMER]},
    "conformer": {
        "encoders": [{"type": "conformer", "width": 256, "layers": 4, "heads": 4, "subsampling": 4}]
    },
    "joint": {
        "encoders": [TRANSFORMER, LSTM | {"stack": 2}],
        "decoder": {"type": "transformer", "width": 384, "layers": 4, "heads": 6, "encoders": 1},
    },
}
LSTM_BATCHES, LSTM_STEPS, LSTM_INPUTS = (16, 64), 400, 768


class Forward(Objective):
    """A loss that costs nothing: what is left of a step is the network."""

    name = "forward"

    def losses(self, outputs, targets):
        return sum(
            ops.mean(outputs[name], axis=(1, 2)) for name in ("logits", "token_logits") if name in outputs
        )


def main(options: argparse.Namespace) -> None:
    """`hark benchmark training`: prints two tables."""
    print(f"Keras {keras.__version__} on {keras.backend.backend()}, {device()}", end="")
    print(f"; {options.batch} utterances of {options.seconds:g} s a step", "; bfloat16" * options.bfloat16)
    rows = []
    for name in MODELS:
        # Not a fork: TensorFlow does not survive it.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
            rows.append(
                alone.submit(measure, name, options.batch, options.seconds, options.bfloat16).result()
            )
    head = ["model", "parameters", "forward ms", "loss ms", "backward and update ms", "step ms"]
    head += ["hours of speech an hour", "input, times as fast", "memory MB"]
    print("\n".join(table(head, rows)))
    if importlib.util.find_spec("torch") is None:
        print("pip install torch to compare the bidirectional LSTM with PyTorch's")
        return
    rows = []
    for batch in LSTM_BATCHES:
        theirs, ours = torch_lstm(batch), keras_lstm(batch)
        times = seconds_each(theirs, ours)
        rows.append(
            [str(batch), *(f"{1000 * seconds:.0f}" for seconds in times), f"{times[1] / times[0]:.2f}"]
        )
    described = f"bidirectional LSTM, 2 × 320, {LSTM_STEPS} steps of {LSTM_INPUTS}; batch"
    print("\n".join(table([described, "PyTorch ms", "Hark ms", "ratio"], rows)))


def device() -> str:
    """The devices that Keras computes on."""
    devices = keras.distribution.list_devices()
    return ", ".join([name for name in devices if "cpu" not in name] or devices)


def measure(name: str, batch: int, seconds: float, bfloat16: bool) -> list[str]:
    """A model's row of the table."""
    if bfloat16:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    bundle = Bundle.load("english")  # for its units and tokens
    description = dict(MODELS[name])
    if decoder := description.get("decoder"):
        description["decoder"] = decoder | {"vocabulary": bundle.vocabulary.size}
    network = SpeechModel(bundle.tokenizer.size, features={"mels": 80}, **description).build_for()
    count = 10 * batch
    said = SENTENCE * max(1, round(seconds / SENTENCE_SECONDS))
    labels = bundle.tokenizer.encode(bundle.tokenizer.normalize(said))
    objectives: list[Objective] = [CTC([labels] * count)]
    if network.decoder is not None:
        objectives.append(Attention(bundle.vocabulary, [said.strip()] * count, network.decoder.max_tokens))
    forward, step = compiled(network, [Forward(1.0)]), compiled(network, objectives)

    noise = np.random.default_rng(0).normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype("float32")
    lengths = np.full(count, len(noise))
    clean = Batches(lengths, lambda *_: noise, SAMPLE_RATE, batch * seconds, targets=step.targets)
    inputs, targets = clean[0]
    timed = seconds_each(
        lambda: forward.test_on_batch(inputs, targets),
        lambda: step.test_on_batch(inputs, targets),
        lambda: step.train_on_batch(inputs, targets),
    )
    parts = timed[0], timed[1] - timed[0], timed[2] - timed[1], timed[2]

    def read(_: int, random: np.random.Generator) -> np.ndarray:
        return augment(noise, random, AUGMENTATION, [noise])

    augmented = Batches(lengths, read, SAMPLE_RATE, batch * seconds, seed=0, targets=step.targets)
    with ThreadPoolExecutor(READERS) as pool:
        start = time.perf_counter()
        list(pool.map(augmented.__getitem__, range(len(augmented))))
        reading = (time.perf_counter() - start) / len(augmented)
    return [
        *(name, f"{network.count_params():,}"),
        *(f"{1000 * part:.0f}" for part in parts),
        *(
            f"{batch * seconds / timed[2]:.0f}",
            f"{timed[2] / reading:.0f}",
            f"{peak_memory_bytes() / 1e6:.0f}",
        ),
    ]


def compiled(network: keras.Model, objectives: list[Objective]) -> TrainingStep:
    """The network's training step, as `hark train` compiles it."""
    step = TrainingStep(network, objectives)
    step.compile(
        keras.optimizers.AdamW(1e-5), jit_compile="auto" if keras.backend.backend() == "jax" else False
    )
    return step


def seconds_each(*functions: Callable[[], object]) -> list[float]:
    """The median time of each, called in turn."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(2 * STEPS):
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return [float(np.median(taken[STEPS:])) for taken in times]


def peak_memory_bytes() -> int:
    """Of the accelerator, where JAX knows it, else of this process."""
    if keras.backend.backend() == "jax":
        import jax

        if used := jax.local_devices()[0].memory_stats():
            return used["peak_bytes_in_use"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def keras_lstm(batch: int) -> Callable[[], object]:
    """A training step of our bidirectional LSTM."""

    class Step(keras.Model):
        def __init__(self):
            super().__init__()
            self.encoder = RecurrentEncoder(width=320, layers=2)

        def call(self, x):
            return ops.mean(self.encoder(x, ops.full([batch], LSTM_STEPS, "int32"))[0], axis=(1, 2))

    step = Step()
    step.compile(keras.optimizers.SGD(1e-3), loss="mse", jit_compile=False)
    x, y = np.zeros((batch, LSTM_STEPS, LSTM_INPUTS), "float32"), np.zeros(batch, "float32")
    return lambda: step.train_on_batch(x, y)


def torch_lstm(batch: int) -> Callable[[], object]:
    """The same step in PyTorch."""
    import torch

    lstm = torch.nn.LSTM(LSTM_INPUTS, 320, num_layers=2, bidirectional=True, batch_first=True)
    x = torch.zeros(batch, LSTM_STEPS, LSTM_INPUTS)

    def step() -> None:
        lstm(x)[0].mean(dim=(1, 2)).square().mean().backward()
        with torch.no_grad():  # torch.optim cannot be imported beside TensorFlow
            for weight in lstm.parameters():
                weight -= 1e-3 * weight.grad
                weight.grad = None

    return step
