"""Sequence models on the same speech with the same budget, and what their gradients and attention do.

    python -m training.benchmark sequence-models an4-train.jsonl an4-test.jsonl books.txt.xz --output runs/all

Makes every number and figure of docs/sequence-models.md; with --docs docs also puts them there. A run that
was stopped goes on where it was, and what is trained already is not trained again.
"""

import argparse
import json
import math
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import yaml

from asr.bundle import Bundle
from asr.decoding.greedy import greedy_decode
from asr.model import SpeechModel
from asr.tokenizer import Tokenizer
from asr.vocabulary import Vocabulary
from training.benchmarks.attention import DecoderErrorRate, Gaze, Writer, gaze
from training.benchmarks.gradients import reach
from training.benchmarks.sequence_report import ATTENTION, BASELINE, BIN, BOTH, DECODER, FREE, write_report
from training.benchmarks.step_log import MeasuredAdamW, StepLog, read_log, step_milliseconds
from training.benchmarks.word_models import compare_word_models
from training.callbacks import CHECKPOINT
from training.config import RunConfig, load_config
from training.data import pad_batch
from training.environment import environment
from training.initialization import vocabulary_of
from training.inputs import dev_set
from training.manifest import read_manifest
from training.scoring.results import score
from training.scoring.transcripts import Output, Recognised, Reference, read_references, read_samples
from training.train import train

CONFIG = Path(__file__).parents[1] / "configs" / "sequence-models.yaml"
CELLS = {"simple RNN": "simple", "LSTM": "lstm", "GRU": "gru"}
# For about a million parameters each: of one direction, of both.
WIDTHS = {"simple RNN": (548, 330), "LSTM": (262, 157), "GRU": (306, 184)}
REACH_SECONDS = 2.0  # how far back gradients are followed
REACH_UTTERANCES = 24
BATCH = 16
DIVERGED = "diverged.txt"  # in the folder of a run whose loss became infinite


def recurrent(cell: str, width: int, both: bool) -> dict[str, Any]:
    """An encoder of two recurrent layers, at 25 steps a second."""
    sizes = {"width": width, "layers": 2, "bidirectional": both, "stack": 4, "dropout": 0.1}
    return {"type": "recurrent", "cell": cell, **sizes}


def models() -> dict[str, list[str]]:
    """By name, what `hark train training/configs/sequence-models.yaml` is told besides."""
    attentive = {"type": "recurrent", "vocabulary": 320, "width": 184, "positions": 128, "dropout": 0.1}
    sizes = {"heads": 4, "subsampling": 4, "dropout": 0.1}
    encoders = {
        **{name: recurrent(cell, WIDTHS[name][0], False) for name, cell in CELLS.items()},
        **{name + BOTH: recurrent(cell, WIDTHS[name][1], True) for name, cell in CELLS.items()},
        ATTENTION: recurrent("lstm", attentive["width"] // 2, True),
        "Transformer": {"type": "transformer", "width": 112, "layers": 6, **sizes},
        "Conformer": {"type": "conformer", "width": 100, "layers": 4, "kernel": 15, **sizes},
    }
    told = {name: [f"model.encoders={json.dumps([encoder])}"] for name, encoder in encoders.items()}
    told[ATTENTION] += [
        f"model.decoder={json.dumps(attentive)}",
        "objectives.ctc.weight=0.3",
        'objectives.attention={"weight": 0.7, "label_smoothing": 0.1}',
    ]
    free = {name + FREE: [*told[name], "optimizer.clip_norm=1e9"] for name in CELLS}
    return told | free


def main(options: argparse.Namespace) -> None:
    """`hark benchmark sequence-models`."""
    references = read_references(options.test)
    sounds = [read_samples(one) for one in references]
    rows, outputs, looked = [], [], None
    for name, told in models().items():
        config = run_config(options, name, told)
        print(f"{name}: {config.output}", file=sys.stderr)
        keras.backend.clear_session()
        row = {"name": name, "overrides": told, **trained(config)}
        rows.append(row)
        if row["diverged"]:
            continue
        bundle = Bundle.load(config.output / "bundle")
        network = bundle.build_model()
        row["parameters"] = sum(math.prod(variable.shape) for variable in network.trainable_variables)
        texts = recognise(network, bundle, sounds)
        for head, found in texts.items():
            recognised = {one.id: Recognised(text) for one, text in zip(references, found, strict=True)}
            outputs.append(Output(DECODER if head == "decoder" else name, recognised))
        if network.decoder is not None:
            looked = look(network, bundle, references, sounds, texts["decoder"])
        elif BOTH not in name:
            steps = round(REACH_SECONDS / network.step_seconds)
            chosen = [(sound, one.text) for sound, one in zip(sounds, references, strict=True)]
            chosen = chosen[:: max(1, len(chosen) // REACH_UTTERANCES)]
            networks = (
                {"after": network} if FREE in name else {"start": untrained(config)[0], "after": network}
            )
            row["step_seconds"] = network.step_seconds
            row["reach"] = {when: reach(it, bundle.tokenizer, chosen, steps) for when, it in networks.items()}
    if not outputs:
        raise ValueError(f"{options.output}: the loss of every model became infinite")
    scores = score(references, outputs, ["basic"]).document
    compared = [{BASELINE}, *({name, name + FREE} for name in CELLS)]
    results = {
        "header": environment(["hark", "benchmark", *options.arguments])
        | {"date": f"{datetime.now(UTC):%Y-%m-%d}"},
        "training": {"set": options.train.stem, "utterances": len(read_manifest(options.train))}
        | {"epochs": config.epochs},
        "references": {"set": options.test.stem, **scores["references"]},
        "models": rows,
        "scores": [
            {key: one[key] for key in ("system", "counts", "wer", "resampled_by", "units")}
            for one in scores["scores"]
        ],
        "comparisons": [
            {key: one[key] for key in ("systems", "difference", "interval")}
            for one in scores["comparisons"]
            if any(pair <= set(one["systems"]) for pair in compared)
        ],
        "language_models": compare_word_models(options.text, options.output),
    }
    write_report(rounded(results), looked, options.output, options.docs)


def run_config(options: argparse.Namespace, name: str, told: Sequence[str]) -> RunConfig:
    """The configuration of a model's run."""
    folder = options.output / name.replace(",", "").replace(" ", "-").lower()
    ours = {"output": str(folder), "data.train": [str(options.train)], "data.dev": [str(options.test)]}
    if options.epochs:
        ours["epochs"] = options.epochs
    return load_config(CONFIG, [*told, *(f"{key}={json.dumps(value)}" for key, value in ours.items())])


def trained(config: RunConfig) -> dict[str, Any]:
    """Trains a model unless its folder has it already.

    Returns the WERs after each epoch in percent, the losses and the gradients' norms of the steps, and the
    time of a step. Raises ValueError where the folder holds a run of another configuration.
    """
    folder = config.output
    known, content = folder / "config.yaml", json.loads(config.model_dump_json())
    if known.exists() and yaml.safe_load(known.read_text(encoding="utf-8")) != content:
        raise ValueError(f"{folder}: holds a run of another configuration; choose another --output")
    if not (folder / "bundle").exists() and not (folder / DIVERGED).exists():
        log = StepLog(folder / "steps.jsonl")
        callbacks = [log, *decoder_error_rate(config)]
        try:
            train(config, (folder / CHECKPOINT).exists(), callbacks, MeasuredAdamW)
        except FloatingPointError as error:
            (folder / DIVERGED).write_text(f"{error}\n", encoding="utf-8")
        shutil.rmtree(folder / "cache")  # a hundred megabytes for each model
    steps = read_log(folder / "steps.jsonl", "step")
    metrics = folder / "metrics.jsonl"
    epochs = read_log(metrics, "epoch") if metrics.exists() else []
    wer = "wer_decoder" if config.model.decoder else f"wer_{config.data.dev[0].stem}"
    norms = np.array([row["gradient_norm"] for row in steps])
    limit = load_config(CONFIG).optimizer.clip_norm  # of the runs that are clipped
    return {
        "diverged": (folder / DIVERGED).exists(),
        "steps": len(steps),
        "step_milliseconds": step_milliseconds(steps),
        "epochs": [row[wer] for row in epochs],
        "losses": summarised([row["loss"] for row in steps]),
        "gradient_norms": summarised(norms),
        "largest_norm": float(norms.max()),
        "above_limit": float((norms > limit).mean()),
    }


def rounded(value: Any) -> Any:
    """Five significant digits of every number, None for one that is not finite: what the page is made of."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def summarised(values: Sequence[float]) -> list[list[float]]:
    """The least, median and greatest of the values of each BIN steps."""
    parts = [values[i : i + BIN] for i in range(0, len(values), BIN)]
    return [np.quantile(part, [0, 0.5, 1]).tolist() for part in parts]


def decoder_error_rate(config: RunConfig) -> list[DecoderErrorRate]:
    """The callback that measures a decoder, where there is one."""
    if config.model.decoder is None:
        return []
    network, tokenizer, vocabulary = untrained(config)
    dev = dev_set(config, network, tokenizer, config.data.dev[0], config.output / "cache")
    return [DecoderErrorRate(dev, vocabulary)]


def untrained(config: RunConfig) -> tuple[SpeechModel, Tokenizer, Vocabulary | None]:
    """What `train` begins with: the same seed gives the same weights."""
    keras.utils.set_random_seed(config.seed)
    entries = [entry for manifest in config.data.train for entry in read_manifest(manifest)]
    tokenizer = Tokenizer.characters()
    vocabulary = vocabulary_of(config, [entry.written or entry.text for entry in entries])
    decoder = None if vocabulary is None else {**config.model.decoder, "vocabulary": vocabulary.size}
    network = SpeechModel(tokenizer.size, config.model.encoders, config.model.features, decoder)
    return network.build_for(), tokenizer, vocabulary


def recognise(network: SpeechModel, bundle: Bundle, sounds: Sequence[np.ndarray]) -> dict[str, list[str]]:
    """The texts of utterances by each head: the most probable unit or token each time."""
    texts = {"ctc": [""] * len(sounds)}
    if network.decoder is not None:
        texts["decoder"] = [""] * len(sounds)
        writer = Writer(network.decoder, bundle.vocabulary)
    order = sorted(range(len(sounds)), key=lambda i: len(sounds[i]))
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        inputs, _ = pad_batch([sounds[i] for i in batch], [{}] * len(batch))
        outputs = network.predict_on_batch(inputs)
        for i, logits, steps in zip(batch, outputs["logits"], outputs["lengths"], strict=True):
            texts["ctc"][i] = greedy_decode(logits[:steps], bundle.tokenizer).text
        if network.decoder is not None:
            written = writer.write(outputs["encoded"], outputs["encoded_lengths"])
            for i, text in zip(batch, written, strict=True):
                texts["decoder"][i] = text
    return texts


def look(
    network: SpeechModel,
    bundle: Bundle,
    references: Sequence[Reference],
    sounds: Sequence[np.ndarray],
    texts: Sequence[str],
) -> Gaze:
    """What the decoder looks at in the utterance of the longest text that it writes right, or of all."""
    said = [bundle.tokenizer.normalize(one.text) for one in references]
    right = [i for i, text in enumerate(texts) if text == said[i]] or range(len(texts))
    longest = max(right, key=lambda i: len(said[i]))
    return gaze(network, bundle.vocabulary, sounds[longest], said[longest])
