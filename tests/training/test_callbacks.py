"""training/callbacks.py: dev WER, exact resume, and checkpoints without NaN."""

from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

from asr.model import SpeechModel
from tests.training.toy import TOKENIZER, VOCABULARY, Speller, write_manifest
from training.callbacks import (
    BEST,
    CHECKPOINT,
    BestEpoch,
    ExactResume,
    StopAtNaN,
    WordErrorRate,
    fit,
    go_on,
    load_progress,
    load_state,
    plan_of,
    save_state,
    state_of,
    token_nats,
)
from training.config import RunConfig
from training.data import Batches
from training.inputs import dev_set
from training.objectives import CTC, Attention
from training.objectives.attention import token_losses
from training.step import TrainingStep

# What is said and what the manifest says, long and short by turns.
DEV = [
    ("it is a fine day in may", "it is a fine day in may"),
    ("hello", "hello"),
    ("good evening to you", "good morning to you"),  # a substitution
    ("no", "oh no no"),  # two deletions
    ("here we are again now", "here are"),  # three insertions
    ("a b", "a b"),
]
ERRORS, WORDS = 6, 19


def test_dev_wer_of_a_model_of_known_output(tmp_path):
    manifest = write_manifest(tmp_path / "dev.jsonl", DEV)
    right = write_manifest(tmp_path / "right.jsonl", [(said, said) for said, _ in DEV])
    data = {"train": [manifest], "dev": [manifest, right]}
    config = RunConfig(output=tmp_path, model={"encoders": []}, data=data)
    network = SpeechModel(TOKENIZER.size, [])  # is not asked
    sets = [dev_set(config, network, TOKENIZER, path, tmp_path) for path in config.data.dev]
    assert any(len(dev.batches[i][0]["lengths"]) > 1 for dev in sets for i in range(len(dev.batches)))
    callback, logs = WordErrorRate(sets, TOKENIZER), {}
    callback.set_model(Speller())
    callback.on_epoch_end(0, logs)
    assert logs == {"wer_dev": pytest.approx(100 * ERRORS / WORDS), "wer_right": 0}


WIDTH, UTTERANCES, EPOCHS = 4, 20, 2
BATCHES = 7  # an epoch


def make_step() -> TrainingStep:
    """A tiny network on features, with all that is random in training."""
    keras.utils.set_random_seed(0)
    encoders = [{"type": "transformer", "width": 4, "layers": 1, "heads": 1, "subsampling": 2}]
    decoder = {"type": "transformer", "width": 4, "layers": 1, "heads": 1, "positions": 32, "dropout": 0.2}
    network = SpeechModel(3, encoders, decoder={**decoder, "vocabulary": VOCABULARY.size}).build_for(WIDTH)
    labels = [[1 + i % 2] for i in range(UTTERANCES)]
    written = ["Hello.", "No", "", None] * UTTERANCES
    objectives = [CTC(labels), Attention(VOCABULARY, written[:UTTERANCES], positions=32, label_smoothing=0.1)]
    masks = {"frequency_width": 1, "time_width": 2}
    step = TrainingStep(network, objectives, spec_augment=masks, dropout=0.2)
    step.compile(optimizer=keras.optimizers.Adam(0.01), run_eagerly=True)
    step.optimizer.build(step.trainable_variables)
    return step


def make_batches(step: TrainingStep, batch_seconds: float = 3.0) -> Batches:
    def read(i: int, random: np.random.Generator) -> np.ndarray:
        return random.standard_normal((8, WIDTH)).astype("float32")

    lengths = np.full(UTTERANCES, 8)
    return Batches(lengths, read, 8.0, batch_seconds, seed=5, targets=step.targets)


class Call(keras.callbacks.Callback):
    """Calls a function with the number of each batch since the start of fit."""

    def __init__(self, function):
        super().__init__()
        self.function, self.batches = function, 0

    def on_train_batch_end(self, batch, logs=None):
        self.function(self.batches, self.model)
        self.batches += 1


def stop_after(batches: int) -> Call:
    def stop(batch: int, model: keras.Model) -> None:
        if batch + 1 == batches:
            raise KeyboardInterrupt

    return Call(stop)


def start(folder: Path, *callbacks) -> Batches:
    """A run as training/train.py starts or resumes it, to its end or to where a callback stops it."""
    step = make_step()
    batches = make_batches(step)
    go_on(batches, folder / CHECKPOINT)
    resume = ExactResume(folder / CHECKPOINT, 2, batches)
    fit(step, batches, EPOCHS, folder / CHECKPOINT, [resume, *callbacks])
    return batches


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, np.ndarray]:
    """The last state of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    batches = start(folder)
    assert len(batches) == BATCHES
    assert load_progress(folder / CHECKPOINT) == {"epoch": EPOCHS, "batch": 0, "plan": None}
    return load_file(folder / CHECKPOINT)


def check_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_run_stopped_again_and_again_ends_with_the_same_state(tmp_path, whole):
    stops = []
    for batches in (5, 4, 2):  # of the first epoch; of its rest from 4 on; of the second
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path, stop_after(batches))
        progress = load_progress(tmp_path / CHECKPOINT)
        stops.append((progress["epoch"], progress["batch"]))
    assert stops == [(0, 4), (1, 0), (1, 2)]
    start(tmp_path)
    check_same(load_file(tmp_path / CHECKPOINT), whole)


def test_batches_are_counted_from_the_epochs_start_after_a_resume(tmp_path, whole):
    for batches in (3, 3):  # from 0 to 3, of which 2 are kept; from 2 to 5, of which 4 are kept
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path, stop_after(batches))
    assert load_progress(tmp_path / CHECKPOINT)["batch"] == 4
    start(tmp_path)
    check_same(load_file(tmp_path / CHECKPOINT), whole)


def test_with_other_batches_the_epoch_begins_again(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, stop_after(5))
    batches = make_batches(make_step(), batch_seconds=2.0)
    go_on(batches, tmp_path / CHECKPOINT)
    assert (batches.epoch, batches.first_batch, len(batches)) == (0, 0, UTTERANCES // 2)
    assert "resumed with other batches: epoch 1 begins again" in capsys.readouterr().err


def test_the_same_batches_go_on_where_they_stopped(tmp_path, capsys):
    step = make_step()
    batches = make_batches(step)
    batches.start_at(1, 0)
    save_state(tmp_path / CHECKPOINT, state_of(step), {"epoch": 1, "batch": 3, "plan": plan_of(batches)})
    again = make_batches(step)
    go_on(again, tmp_path / CHECKPOINT)
    assert (again.epoch, again.first_batch) == (1, 3)
    assert capsys.readouterr().err == ""
    first = again[0][0]["inputs"]
    np.testing.assert_array_equal(first, batches[3][0]["inputs"])


@pytest.mark.parametrize(("bad", "when"), [(np.nan, 3), (np.inf, BATCHES - 1)])
def test_a_checkpoint_never_holds_weights_that_are_not_finite(tmp_path, bad, when):
    """An update may break them after a loss that was finite, within an epoch or at its end."""

    def break_weights(batch: int, model: keras.Model) -> None:
        if batch == when:
            bias = model.network.output_layer.bias
            bias.assign(np.full(bias.shape, bad))

    breaking = Call(break_weights)
    step = make_step()
    batches = make_batches(step)
    resume = ExactResume(tmp_path / CHECKPOINT, 1, batches)
    with pytest.raises(FloatingPointError, match="output/bias is not finite: resume with a lower"):
        fit(step, batches, EPOCHS, tmp_path / CHECKPOINT, [breaking, resume])
    assert load_progress(tmp_path / CHECKPOINT)["batch"] == when
    assert all(np.isfinite(value).all() for value in load_file(tmp_path / CHECKPOINT).values())


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_ends_the_run(loss):
    callback = StopAtNaN()
    callback.on_train_batch_end(0, {"loss": 1.0})
    with pytest.raises(FloatingPointError, match="at batch 7: resume with a lower learning rate"):
        callback.on_train_batch_end(7, {"loss": loss})


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        (({"wer_a": 20.0}, {"wer_a": 30.0}), 1),
        (({"wer_a": 20.0}, {"wer_a": 10.0}), 2),
        (({"wer_a": 20.0}, {"wer_a": 20.0}), 1),
        (({"wer_a": 20.0, "wer_b": 50.0}, {"wer_a": 30.0, "wer_b": 35.0}), 2),
        # A decoder that gets worse counts more than a CTC head that gets better.
        (({"wer_a": 20.0, "nats_a": 1.0}, {"wer_a": 10.0, "nats_a": 1.1}), 1),
    ],
)
def test_the_best_epoch_is_kept(tmp_path, rows, best):
    step = make_step()
    bias = step.network.output_layer.bias
    for epoch, logs in enumerate(rows):
        bias.assign(np.full(bias.shape, epoch + 1))
        callback = BestEpoch(tmp_path / BEST)  # as after a resume: what is in the file counts
        callback.set_model(step)
        callback.on_epoch_end(epoch, logs)
    assert load_progress(tmp_path / BEST)["epoch"] == best
    load_state(tmp_path / BEST, step.network.weights)
    np.testing.assert_array_equal(bias, np.full(bias.shape, best))


def test_cross_entropy_of_the_tokens_behind_the_prompt():
    random = np.random.default_rng(0)
    logits = random.normal(size=(7, 11)).astype("float32")  # padded: there are 6 tokens
    tokens = np.int32([10, 9, 3, 4, 5, 8])
    expected = np.array(token_losses(logits[None, :5], tokens[None, 1:]))[0, 1:]
    np.testing.assert_allclose(token_nats(logits, tokens, prompt=2), expected, rtol=1e-5)
    assert not len(token_nats(logits, tokens[:0], prompt=2))
