"""training/frozen.py: a run on cached outputs of frozen encoders is a run on the sound."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from asr.model import SpeechModel
from tests.training.toy import TOKENIZER, write_manifest
from training.config import RunConfig
from training.data import Batches
from training.inputs import dev_set, read_noise, training_inputs
from training.manifest import read_manifest
from training.objectives import CTC
from training.speech import Speech, read_speech
from training.step import TrainingStep

ENCODERS = [
    {"type": "transformer", "width": 8, "layers": 1, "heads": 2, "subsampling": 2, "final_norm": False},
    {"type": "recurrent", "width": 6, "layers": 1, "stack": 2},
]
# Of two lengths that change places, so that neither order nor length tells which is which.
TEXTS = ["hello", "good evening to you", "world", "a", "what fine weather it is", "haloo", "it is", "so long"]
NOISE = ["zzzz", "qqqqqqqqqqqqqqqqq"]
TOLERANCE = 5e-3  # of logits, from the cache's float16


def make_config(folder: Path, **options) -> RunConfig:
    data = {
        "train": [folder / "train.jsonl"],
        "dev": [folder / "dev.jsonl"],
        "noise": folder / "noise.jsonl",
        "augmentation": options.pop("augmentation", {}),
    }
    return RunConfig(
        output=folder / "run", model={"encoders": ENCODERS}, data=data, frozen_encoders=1, seed=1, **options
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("frozen")
    write_manifest(folder / "train.jsonl", [(text, text) for text in TEXTS])
    write_manifest(folder / "dev.jsonl", [(text, text) for text in TEXTS])
    write_manifest(folder / "noise.jsonl", [(text, text) for text in NOISE])
    return folder


@pytest.fixture
def network() -> SpeechModel:
    keras.utils.set_random_seed(0)
    network = SpeechModel(TOKENIZER.size, ENCODERS, {"mels": 12}).build_for()
    network.output_layer.kernel.assign(3 * keras.random.normal(network.output_layer.kernel.shape, seed=1))
    return network


def read_all(config: RunConfig, folder: Path) -> tuple[Speech, Speech]:
    speech = read_speech(read_manifest(config.data.train[0]), TOKENIZER, folder / "speech")
    return speech, read_noise(config, TOKENIZER, folder / "noise")


def logits_of(model: keras.Model, inputs: dict) -> list[np.ndarray]:
    """[steps, units] of each utterance of a batch."""
    outputs = model(inputs)
    logits, lengths = (ops.convert_to_numpy(outputs[name]) for name in ("logits", "lengths"))
    return [row[:steps] for row, steps in zip(logits, lengths, strict=True)]


def expected_logits(network: SpeechModel, sounds: list[np.ndarray]) -> list[np.ndarray]:
    """Of each utterance by itself, from its samples. No two are alike."""
    found = [
        logits_of(network, {"inputs": samples[None], "lengths": np.int32([len(samples)])})[0]
        for samples in sounds
    ]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert one.shape != other.shape or np.abs(one - other).max() > 10 * TOLERANCE
    return found


def check_epoch(config: RunConfig, network: SpeechModel, folder: Path, cache: Path) -> None:
    """Every utterance of an epoch has the logits of its sound and the labels of its text."""
    speech, noise = read_all(config, folder)
    expected = expected_logits(network, [*speech, *noise])
    texts = [*TEXTS, *[""] * len(NOISE)]
    labels = [TOKENIZER.encode(text) for text in texts]
    step = TrainingStep(network, [CTC(labels)], frozen_encoders=1)
    lengths, read, rate, _ = training_inputs(config, network, speech, noise, cache)
    batches = Batches(lengths, read, rate, 4.0, seed=3, targets=step.targets)
    found = []
    for index, utterances in enumerate(batches.plan):
        inputs, targets = batches[index]
        for row, (utterance, logits) in enumerate(zip(utterances, logits_of(step, inputs), strict=True)):
            np.testing.assert_allclose(logits, expected[utterance], atol=TOLERANCE)
            said = targets["labels"][row, : targets["labels_lengths"][row]]
            assert TOKENIZER.decode(said) == texts[utterance]
            found.append(utterance)
    assert sorted(found) == list(range(len(texts)))
    assert found != sorted(found)


def test_a_batch_of_a_frozen_run_is_the_forward_pass_of_its_sound(folder, network, tmp_path):
    # Of several copies only the first is clean; there is one.
    config = make_config(folder, augmentation={"gain": 1.0})
    check_epoch(config, network, folder, tmp_path)
    # What other weights made is not taken from the cache.
    for variable in network.encoders[0].weights:
        variable.assign_add(0.3 * keras.random.normal(variable.shape, seed=2))
    check_epoch(config, network, folder, tmp_path)


def test_further_copies_are_augmented(folder, network, tmp_path):
    config = make_config(folder, augmentation={"gain": 1.0}, cached_copies=2)
    speech, noise = read_all(config, folder)
    _, read, *_ = training_inputs(config, network, speech, noise, tmp_path)
    copies = [read(0, np.random.default_rng(seed)) for seed in range(8)]
    assert len(np.unique([copy.sum() for copy in copies])) == 2


def test_a_dev_set_through_frozen_encoders_has_the_same_texts_and_outputs(folder, network, tmp_path):
    config = make_config(folder)
    step = TrainingStep(network, [CTC([])], frozen_encoders=1)
    frozen = dev_set(config, network, TOKENIZER, config.data.dev[0], tmp_path)
    whole = dev_set(
        config.model_copy(update={"frozen_encoders": 0}), network, TOKENIZER, config.data.dev[0], tmp_path
    )
    assert sorted(frozen.texts) == sorted(TEXTS)
    assert frozen.texts == whole.texts != TEXTS
    assert len(frozen.batches) == len(whole.batches)
    for index in range(len(whole.batches)):
        expected = logits_of(network, whole.batches[index][0])
        found = logits_of(step, frozen.batches[index][0])
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=TOLERANCE)
