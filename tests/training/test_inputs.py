"""training/inputs.py: which sound and which text a network is given."""

import json

import numpy as np
import pytest
import soundfile

from asr.audio import SAMPLE_RATE
from asr.model import SpeechModel
from tests.training.toy import TOKENIZER, spell, write_manifest
from training.config import ConfigError, RunConfig
from training.inputs import dev_set, read_noise, training_inputs
from training.manifest import read_manifest
from training.speech import read_speech

TEXTS = ["hello", "a", "good day", "b"]
NOISE_SECONDS = (0.5, 3.0)
MAX_SECONDS = 1.25


@pytest.fixture
def config(tmp_path) -> RunConfig:
    rows = []
    for number, seconds in enumerate(NOISE_SECONDS):
        noise = 0.1 * np.random.default_rng(number).standard_normal(round(seconds * SAMPLE_RATE))
        soundfile.write(tmp_path / f"noise-{number}.wav", noise, SAMPLE_RATE)
        # Corpora of noise name what makes it.
        rows.append({"audio_filepath": f"noise-{number}.wav", "text": "vacuum cleaner", "duration": seconds})
    (tmp_path / "noise.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = write_manifest(tmp_path / "train.jsonl", [(text, text) for text in TEXTS])
    data = {"train": [train], "noise": tmp_path / "noise.jsonl", "max_seconds": MAX_SECONDS}
    return RunConfig(output=tmp_path / "run", model={"encoders": [{"type": "recurrent"}]}, data=data)


def test_noise_is_learnt_as_no_words_and_cut_to_the_longest_utterance(config, tmp_path):
    noise = read_noise(config, TOKENIZER, tmp_path / "noise")
    assert noise.texts == noise.written == ["", ""]
    seconds = [min(seconds, MAX_SECONDS) for seconds in NOISE_SECONDS]
    assert [len(noise[i]) for i in range(2)] == [round(s * SAMPLE_RATE) for s in seconds]


def test_without_a_manifest_of_noise_there_is_none(config, tmp_path):
    data = config.data.model_copy(update={"noise": None})
    assert not len(read_noise(config.model_copy(update={"data": data}), TOKENIZER, tmp_path / "noise"))


def test_each_utterance_has_its_own_sound(config, tmp_path):
    speech = read_speech(read_manifest(config.data.train[0]), TOKENIZER, tmp_path / "speech")
    noise = read_noise(config, TOKENIZER, tmp_path / "noise")
    network = SpeechModel(TOKENIZER.size, config.model.encoders, {"mels": 8})  # is not asked
    lengths, read, rate, _ = training_inputs(config, network, speech, noise, tmp_path)
    assert rate == SAMPLE_RATE
    random = np.random.default_rng(0)
    for i, text in enumerate(TEXTS):
        np.testing.assert_allclose(read(i, random), spell(text), atol=1e-4)
    for i in range(2):
        np.testing.assert_array_equal(read(len(TEXTS) + i, random), noise[i])
    assert lengths.tolist() == [len(read(i, random)) for i in range(len(TEXTS) + 2)]


def test_augmentation_changes_what_is_read_at_random(config, tmp_path):
    augmentation = config.data.augmentation.model_copy(update={"gain": 1.0})
    data = config.data.model_copy(update={"augmentation": augmentation})
    config = config.model_copy(update={"data": data})
    speech = read_speech(read_manifest(config.data.train[0]), TOKENIZER, tmp_path / "speech")
    noise = read_noise(config, TOKENIZER, tmp_path / "noise")
    _, read, *_ = training_inputs(config, SpeechModel(TOKENIZER.size, []), speech, noise, tmp_path)
    one, other, again = (read(0, np.random.default_rng(seed)) for seed in (1, 2, 1))
    assert not np.allclose(one, other)
    np.testing.assert_array_equal(one, again)


def test_noise_becomes_babble(config, tmp_path):
    augmentation = config.data.augmentation.model_copy(update={"babble": 1.0})
    config = config.model_copy(update={"data": config.data.model_copy(update={"augmentation": augmentation})})
    speech = read_speech(read_manifest(config.data.train[0]), TOKENIZER, tmp_path / "speech")
    noise = read_noise(config, TOKENIZER, tmp_path / "noise")
    _, read, *_ = training_inputs(config, SpeechModel(TOKENIZER.size, []), speech, noise, tmp_path)
    np.testing.assert_array_equal(read(0, np.random.default_rng(1)), speech[0])
    one, other, again = (read(len(speech), np.random.default_rng(seed)) for seed in (1, 2, 1))
    assert len(one) == len(other) == len(noise[0])
    assert not np.allclose(one, other) and not np.allclose(one, noise[0])
    np.testing.assert_array_equal(one, again)


def test_an_empty_dev_set_is_refused(config, tmp_path):
    dev = write_manifest(tmp_path / "dev.jsonl", [("hello", "5")])
    with pytest.raises(ConfigError, match=r"dev\.jsonl: nothing is left to measure on"):
        dev_set(config, SpeechModel(TOKENIZER.size, []), TOKENIZER, dev, tmp_path)
