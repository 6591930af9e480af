"""training/train.py on five utterances: what is loaded, what is trained and at which rate, end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

from asr.bundle import Bundle, save_bundle, weights_path
from asr.model import SpeechModel
from tests.training.toy import TOKENIZER, VOCABULARY, write_manifest
from training import train as training
from training.callbacks import CHECKPOINT
from training.config import RunConfig, load_config
from training.optimizer import ScaledAdamW

ENCODERS = [{"type": "recurrent", "cell": "gru", "width": 4, "layers": 1, "stack": 2} for _ in range(3)]
TEXTS = ["hello", "good evening to you", "world", "so long", "what fine weather it is"]
EPOCHS, RATE = 2, 0.01


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    keras.utils.set_random_seed(1)
    network = SpeechModel(TOKENIZER.size, ENCODERS, {"mels": 8}).build_for()
    return save_bundle(tmp_path_factory.mktemp("source") / "bundle", network, TOKENIZER)


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory) -> tuple[RunConfig, ScaledAdamW]:
    """A run that freezes the first encoder and holds the second by its rate; and its optimizer."""
    folder = tmp_path_factory.mktemp("run")
    manifest = write_manifest(folder / "train.jsonl", [(text, text) for text in TEXTS])
    config = RunConfig(
        output=folder / "run",
        model={"encoders": ENCODERS, "features": {"mels": 8}},
        data={"train": [manifest], "dev": [manifest], "batch_seconds": 2.0},
        optimizer={
            "learning_rate": RATE,
            "weight_decay": 0,
            "warmup": 0.25,
            "multipliers": {"encoder_1": 0.0},
        },
        epochs=EPOCHS,
        initialize=source,
        frozen_encoders=1,
    )
    optimizers = []

    class Kept(ScaledAdamW):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            optimizers.append(self)

    training.train(config, optimizer_class=Kept)
    [optimizer] = optimizers
    return config, optimizer


def test_frozen_parts_stay_those_of_the_source_and_the_others_are_trained(finished, source):
    config, _ = finished
    before, after = load_file(weights_path(source)), load_file(weights_path(config.output / "bundle"))
    assert before.keys() == after.keys()
    for name in before:
        is_held = name.startswith(("encoder_0/", "encoder_1/"))
        assert np.array_equal(before[name], after[name]) == is_held, name
    moved = np.abs(after["output/bias"].astype("float32") - before["output/bias"].astype("float32"))
    assert 0 < moved.max() < 1.2 * RATE * len(TEXTS) * EPOCHS  # from where it started


def test_the_rate_falls_to_zero_at_the_last_step_of_the_run(finished):
    _, optimizer = finished
    steps = int(optimizer.iterations)
    assert steps >= 2 * EPOCHS
    schedule = optimizer.get_config()["learning_rate"]["config"]
    assert schedule == {"peak": RATE, "warmup_steps": int(0.25 * steps), "steps": steps}
    assert float(optimizer.learning_rate) == 0


def test_the_log_has_every_epoch(finished):
    config, _ = finished
    rows = [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(np.isfinite(row["loss"]) and row["wer_train"] >= 0 for row in rows)


def test_a_finished_run_can_be_resumed_for_its_bundle_and_keeps_its_tokenizer(finished):
    config, _ = finished
    path = weights_path(config.output / "bundle")
    before = path.read_bytes()
    assert (config.output / CHECKPOINT).exists()
    path.unlink()
    other = {"language": "en", "alphabet": TOKENIZER.alphabet[::-1]}
    changed = RunConfig.model_validate({**config.model_dump(), "tokenizer": other})
    training.train(changed, resume=True)
    assert Bundle.load(config.output / "bundle").tokenizer == TOKENIZER
    assert path.read_bytes() == before


JOINT = [{**ENCODERS[0], "bidirectional": False}, ENCODERS[1]]
DECODER = {"type": "transformer", "encoders": 1, "width": 4, "layers": 1, "heads": 1, "positions": 32}
JOINT_TEXTS = ["hello", "good evening", "world", "so long"]


@pytest.fixture
def joint_config(tmp_path) -> Path:
    """Cased text beside some of the utterances, noise, and a bundle that brings the vocabulary."""
    manifest = write_manifest(tmp_path / "train.jsonl", [(text, text) for text in JOINT_TEXTS])
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for row in rows[1:]:
        row["text_cased"] = row["text"].capitalize() + "."
    rows[0] |= {"text": "", "text_cased": "[noise]"}
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    keras.utils.set_random_seed(2)
    network = SpeechModel(None, JOINT[:1], {"mels": 8}, {**DECODER, "vocabulary": VOCABULARY.size})
    source = save_bundle(tmp_path / "whisper", network.build_for(), TOKENIZER, VOCABULARY)
    content = {
        "output": str(tmp_path / "run"),
        "initialize": {str(source): 1.0},
        "model": {"encoders": JOINT, "features": {"mels": 8}, "decoder": DECODER},
        "data": {"train": [str(manifest)], "dev": [str(manifest)], "batch_seconds": 2.0},
        "objectives": {"ctc": {"weight": 0.3}, "attention": {"weight": 0.7, "label_smoothing": 0.1}},
        "epochs": EPOCHS,
    }
    path = tmp_path / "joint.yaml"
    path.write_text(json.dumps(content))
    return path


def check_joint(folder: Path) -> None:
    bundle = Bundle.load(folder / "bundle")
    assert bundle.vocabulary == VOCABULARY
    assert bundle.has_ctc and bundle.silence_seconds > 0
    assert bundle.config["decoder"] == {**DECODER, "vocabulary": VOCABULARY.size}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["attention"] < 100 and row["ctc"] > 0 and row["wer_train"] >= 0 for row in rows)
    assert all(0 < row["nats_train"] < 10 for row in rows)
    assert all(row["loss"] == pytest.approx(0.3 * row["ctc"] + 0.7 * row["attention"], 0.05) for row in rows)
    source = load_file(weights_path(folder.parent / "whisper"))
    trained = load_file(weights_path(folder / "bundle"))
    for part in ("decoder/tokens", "decoder/block_0/cross_attention", "encoder_0"):
        names = [name for name in source if name.startswith(part)]
        assert names
        moved = [np.abs(trained[name].astype("float32") - source[name]).max() for name in names]
        assert 0 < max(moved) < 0.1
    model = bundle.build_model()
    sound = np.random.default_rng(0).standard_normal((1, 8000)).astype("float32")
    outputs = model({"inputs": sound, "lengths": np.int32([8000]), "tokens": np.int32([VOCABULARY.prompt])})
    assert np.isfinite(outputs["logits"]).all() and np.isfinite(outputs["token_logits"]).all()


def test_a_joint_run_trains_encoder_decoder_and_head(joint_config, tmp_path):
    training.train(load_config(joint_config))
    check_joint(tmp_path / "run")


def test_a_joint_run_works_on_jax(joint_config, tmp_path):
    pytest.importorskip("jax")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "training.train", joint_config]
    subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, check=True, timeout=400)
    check_joint(tmp_path / "run")
