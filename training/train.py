"""Train an acoustic model: python -m training.train CONFIG [key=value ...] [--resume]

The weights come from the first of: this run's own checkpoint (--resume), `initialize`, chance.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("train")

import argparse
import hashlib
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.progress import track

from asr.audio import SAMPLE_RATE
from asr.bundle import Bundle, save_bundle, weights_digest, weights_path
from asr.cli import naming
from asr.engine import Engine
from asr.features import FRAME_SECONDS
from asr.model import CTCModel
from asr.tokenizer import ENGLISH_ALPHABET, Tokenizer, letters_of
from training.augmentation import augment
from training.cache import RaggedCache
from training.callbacks import (
    CHECKPOINT,
    DevSet,
    ExactResume,
    MetricsLog,
    StopAtNaN,
    WordErrorRate,
    fit,
    go_on,
)
from training.config import ConfigError, RunConfig, load_config
from training.data import Batches
from training.frozen import EncodedSpeech, FrozenEncoders
from training.initialization import initialize, source_bundle
from training.manifest import Entry, read_manifest
from training.objectives import CTC, Consistency, Distillation, Objective
from training.optimizer import ScaledAdamW, WarmupLinearDecay
from training.run_folder import open_run_folder
from training.speech import Speech, read_speech
from training.step import TrainingStep

DEV_BATCH_SECONDS = 240.0


def main(options: argparse.Namespace) -> None:
    """`hark train`."""
    config = load_config(options.config, options.overrides)
    with naming(config.output):
        train(config, options.resume)


def train(config: RunConfig, resume: bool = False) -> Path:
    """Trains as the config says and returns the folder of the bundle."""
    # Config
    folder = open_run_folder(config, resume)
    keras.utils.set_random_seed(config.seed)
    if config.mixed_precision:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")

    # Network
    entries = [entry for manifest in config.data.train for entry in read_manifest(manifest)]
    tokenizer = tokenizer_of(config, folder, [entry.text for entry in entries])
    network = CTCModel(tokenizer.size, config.model.encoders, config.model.features).build_for()
    if config.initialize is not None:
        initialize(network, tokenizer, config.initialize)

    # Data
    cache = folder / "cache"
    limits = {"max_seconds": config.data.max_seconds, "step_seconds": network.step_seconds}
    speech = read_speech(entries, tokenizer, cache / "audio", **limits, progress=bar("decoding"))
    if not len(speech):
        raise ConfigError(f"{', '.join(map(str, config.data.train))}: nothing is left to train on")
    noise = read_noise(config, tokenizer, cache / "noise")
    print(f"{len(speech)} utterances, {speech.hours:.1f} h", file=sys.stderr)
    lengths, read, rate = training_inputs(config, network, speech, noise, cache)
    dev_sets = [dev_set(config, network, tokenizer, manifest, cache) for manifest in config.data.dev]

    # Objectives
    objectives = build_objectives(config, network, tokenizer, speech, noise, lengths, cache)
    step = TrainingStep(
        network, objectives, config.model.spec_augment, config.model.dropout, config.frozen_encoders
    )

    def targets(utterance: int, inputs: np.ndarray) -> dict[str, np.ndarray]:
        parts = [objective.targets(utterance, inputs) for objective in objectives]
        return {name: array for part in parts for name, array in part.items()}

    batches = Batches(
        lengths, read, rate, config.data.batch_seconds, seed=config.seed, workers=2, targets=targets
    )

    # Optimizer
    steps = len(batches) * config.epochs
    optimizer = ScaledAdamW(
        WarmupLinearDecay(config.optimizer.learning_rate, int(config.optimizer.warmup * steps), steps),
        multipliers=config.optimizer.multipliers,
        weight_decay=config.optimizer.weight_decay,
        global_clipnorm=config.optimizer.clip_norm,
    )
    step.compile(optimizer=optimizer, jit_compile="auto" if keras.backend.backend() == "jax" else False)
    optimizer.build(step.trainable_variables)

    # Loop
    go_on(batches, folder / CHECKPOINT)
    callbacks = [
        StopAtNaN(),  # before a checkpoint is written
        WordErrorRate(dev_sets, tokenizer),
        ExactResume(folder / CHECKPOINT, config.checkpoint_steps, batches),
        MetricsLog(folder / "metrics.jsonl"),
    ]
    if keras.backend.backend() == "tensorflow":  # through which Keras' callback writes
        callbacks.append(keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False))
    fit(step, batches, config.epochs, folder / CHECKPOINT, callbacks)
    return save_bundle(folder / "bundle", network, tokenizer)


def tokenizer_of(config: RunConfig, folder: Path, texts: Sequence[str]) -> Tokenizer:
    """The run's own if it has begun already, else the config's, else that of the model it starts from."""
    path = folder / "tokenizer.json"
    if (folder / CHECKPOINT).exists() and path.exists():
        return Tokenizer.load(path)
    options = config.tokenizer
    if options is None:
        source = source_bundle(config.initialize)
        tokenizer = Tokenizer.characters() if source is None else source.tokenizer
    else:
        alphabet = options.alphabet or (ENGLISH_ALPHABET if options.language == "en" else letters_of(texts))
        if options.units == "bpe":
            tokenizer = Tokenizer.train_bpe(texts, options.language, alphabet, options.size)
        else:
            tokenizer = Tokenizer.characters(options.language, alphabet)
    tokenizer.save(path)
    return tokenizer


def read_noise(config: RunConfig, tokenizer: Tokenizer, folder: Path) -> Speech:
    """The noise recordings up to the longest utterance's length, as utterances without words."""
    entries: list[Entry] = read_manifest(config.data.noise) if config.data.noise else []
    longest = config.data.max_seconds
    entries = [
        replace(entry, text="", duration_seconds=min(entry.duration_seconds, longest)) for entry in entries
    ]
    return read_speech(entries, tokenizer, folder, progress=bar("decoding noise"))


def training_inputs(
    config: RunConfig, network: CTCModel, speech: Speech, noise: Speech, cache: Path
) -> tuple[np.ndarray, Callable[[int, np.random.Generator], np.ndarray], float]:
    """Lengths, reader and rate of the inputs: augmented samples, or outputs of frozen encoders.

    Utterances from `len(speech)` on are the noise.
    """
    probabilities = config.data.augmentation.model_dump()
    lengths = np.concatenate([speech.lengths, noise.lengths])

    def read_clean(i: int, _: np.random.Generator) -> np.ndarray:
        return speech[i] if i < len(speech) else noise[i - len(speech)]

    def read_augmented(i: int, random: np.random.Generator) -> np.ndarray:
        return augment(read_clean(i, random), random, probabilities, noise)

    frozen = config.frozen_encoders
    if not frozen:
        return lengths, read_augmented, SAMPLE_RATE
    copies = []
    for copy in range(config.cached_copies):
        read, seed = (read_augmented if copy else read_clean), config.seed + copy
        batches = Batches(lengths, read, SAMPLE_RATE, DEV_BATCH_SECONDS, seed=seed, workers=2)
        content = [speech.key, noise.key, probabilities if copy else None, seed]
        folder, progress = cache / f"encoded-train-{copy}", bar(f"encoding copy {copy}")
        copies.append(EncodedSpeech(FrozenEncoders(network, frozen), batches, folder, content, progress))

    def read_copy(i: int, random: np.random.Generator) -> np.ndarray:
        return copies[int(random.integers(len(copies)))].read(i)

    frame_seconds = FRAME_SECONDS * math.prod(encoder.subsampling for encoder in network.encoders[:frozen])
    return copies[0].lengths, read_copy, 1 / frame_seconds


def build_objectives(
    config: RunConfig,
    network: CTCModel,
    tokenizer: Tokenizer,
    speech: Speech,
    noise: Speech,
    lengths: np.ndarray,
    cache: Path,
) -> list[Objective]:
    """What the run is trained for."""
    labels = [tokenizer.encode(text) for text in [*speech.texts, *noise.texts]]
    objectives: list[Objective] = [CTC(labels, config.objectives.ctc.weight)]
    if config.objectives.distillation:
        options = config.objectives.distillation
        probabilities = teach(options.teacher, network, tokenizer, [speech, noise], cache / "teacher")
        objectives.append(Distillation(probabilities, lengths, options.weight))
    if config.objectives.consistency:
        objectives.append(Consistency(config.objectives.consistency.weight))
    return objectives


def teach(
    source: Path, network: CTCModel, tokenizer: Tokenizer, parts: Sequence[Speech], folder: Path
) -> RaggedCache:
    """A teacher's probabilities of every utterance, float16 [steps, units], computed once.

    Raises ConfigError for a teacher with other units or steps.
    """
    teacher = Bundle.load(source)
    same_steps = math.isclose(teacher.step_seconds, network.step_seconds)
    if teacher.tokenizer.symbols != tokenizer.symbols or not same_steps:
        raise ConfigError(
            f"{source}: has {teacher.tokenizer.size} units and steps of {teacher.step_seconds:g} s; it "
            f"cannot teach a model of {tokenizer.size} units and steps of {network.step_seconds:g} s"
        )
    engine = Engine.load(teacher)

    def probabilities():
        utterances = [(part, i) for part in parts for i in range(len(part))]
        for part, i in bar("asking the teacher")(utterances):
            yield np.exp(engine.log_probs(part[i])).astype("float16")

    content = [weights_digest(weights_path(teacher.directory)), *(part.key for part in parts)]
    return RaggedCache.create(folder, content, probabilities())


def dev_set(
    config: RunConfig, network: CTCModel, tokenizer: Tokenizer, manifest: Path, cache: Path
) -> DevSet:
    """Every utterance of a dev manifest, through the frozen encoders where there are any."""
    name = manifest.stem
    if sum(name == other.stem for other in config.data.dev) > 1:  # namesakes in other folders
        name = f"{name}-{hashlib.sha256(str(manifest.resolve()).encode()).hexdigest()[:6]}"
    speech = read_speech(read_manifest(manifest), tokenizer, cache / f"dev-{name}", progress=bar(name))
    if not len(speech):
        raise ConfigError(f"{manifest}: nothing is left to measure on")

    def batches_of(read) -> Batches:
        return Batches(speech.lengths, read, SAMPLE_RATE, DEV_BATCH_SECONDS)

    batches = batches_of(lambda i, _: speech[i])
    texts = [speech.texts[i] for utterances in batches.plan for i in utterances]
    if config.frozen_encoders:
        frozen = FrozenEncoders(network, config.frozen_encoders)
        folder = cache / f"encoded-dev-{name}"
        encoded = EncodedSpeech(frozen, batches, folder, speech.key, bar(f"encoding {name}"))
        batches = batches_of(lambda i, _: encoded.read(i))
    return DevSet(name, batches, texts)


def bar(what: str) -> Callable[[Iterable], Iterable]:
    """Shows progress on a terminal."""
    return lambda items: track(items, what, console=Console(stderr=True), disable=not sys.stderr.isatty())
