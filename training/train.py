"""Train an acoustic model: python -m training.train CONFIG [key=value ...] [--resume]

The weights come from the first of: this run's own checkpoint (--resume), `initialize`, chance.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("train")

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import keras

from asr.bundle import save_bundle
from asr.model import SpeechModel
from training.callbacks import (
    BEST,
    CHECKPOINT,
    BestEpoch,
    ExactResume,
    MetricsLog,
    StopAtNaN,
    WordErrorRate,
    fit,
    go_on,
    load_progress,
    load_state,
    state_of,
)
from training.config import ConfigError, RunConfig
from training.data import Batches, Share
from training.devices import distribute, joined, require_jax, share_of_batches, wait_for_all
from training.initialization import initialize, source_bundles, tokenizer_of, vocabulary_of
from training.inputs import dev_set, read_noise, training_inputs
from training.manifest import read_manifest
from training.objectives import CTC, Attention, Consistency, Distillation, Objective
from training.objectives.distillation import teacher_probabilities
from training.optimizer import ScaledAdamW, WarmupLinearDecay
from training.run_folder import open_run_folder
from training.scoring.console import progress
from training.speech import read_speech
from training.step import TrainingStep


def main(options: argparse.Namespace) -> None:
    """`hark train`. An OSError that names no path, as of a full disk, gets the run folder's."""
    try:
        with joined(options.coordinator, options.process, options.processes):
            train(options.config, options.resume)
    except OSError as error:
        folder = str(options.config.output)
        if error.strerror is None:  # a library's own, with a text only
            raise OSError(0, str(error), folder) from error
        error.filename = error.filename or folder
        raise


def train(
    config: RunConfig,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    optimizer_class: type[ScaledAdamW] = ScaledAdamW,
) -> Path:
    """Trains as the config says and returns the folder of the bundle.

    Args:
      resume: go on from the run folder's checkpoint.
      callbacks: further ones; what they log of an epoch goes into metrics.jsonl.
      optimizer_class: one that measures more.
    """
    # Devices
    share = Share()
    if config.devices == "all":
        require_jax()
        share = share_of_batches()
    first = share.process == 0  # writes the files of the run, which the others read
    if not first:
        wait_for_all("caches")

    # Config
    folder = open_run_folder(config, resume) if first else config.output
    keras.utils.set_random_seed(config.seed)
    if config.mixed_precision:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")

    # Network
    entries = [entry for manifest in config.data.train for entry in read_manifest(manifest)]
    tokenizer = tokenizer_of(config, folder, [entry.text for entry in entries])
    vocabulary = vocabulary_of(config, [entry.written or entry.text for entry in entries])
    decoder = None if vocabulary is None else {**config.model.decoder, "vocabulary": vocabulary.size}
    network = SpeechModel(tokenizer.size, config.model.encoders, config.model.features, decoder).build_for()
    if config.initialize:
        initialize(network, tokenizer, vocabulary, source_bundles(config))

    # Data
    cache = folder / "cache"
    limits = {"max_seconds": config.data.max_seconds, "step_seconds": network.step_seconds}
    speech = read_speech(entries, tokenizer, cache / "audio", **limits, progress=progress("decoding"))
    if not len(speech):
        raise ConfigError(f"{', '.join(map(str, config.data.train))}: nothing is left to train on")
    noise = read_noise(config, tokenizer, cache / "noise")
    print(f"{len(speech)} utterances, {speech.hours:.1f} h", file=sys.stderr)
    lengths, read, rate, longest = training_inputs(config, network, speech, noise, cache)
    dev_sets = [
        dev_set(config, network, tokenizer, manifest, cache, vocabulary) for manifest in config.data.dev
    ]

    # Objectives
    labels = [tokenizer.encode(text) for text in [*speech.texts, *noise.texts]]
    objectives: list[Objective] = [CTC(labels, config.objectives.ctc.weight)]
    if options := config.objectives.attention:
        written = [*speech.written, *noise.written]
        if not any(written):  # a corpus without capitals
            written = [*speech.texts, *noise.texts]
        positions = network.decoder.max_tokens
        objectives.append(Attention(vocabulary, written, positions, options.weight, options.label_smoothing))
    if options := config.objectives.distillation:
        teacher, shown = cache / "teacher", progress("asking the teacher")
        parts = [speech, noise]
        probabilities = teacher_probabilities(options.teacher, network, tokenizer, parts, teacher, shown)
        objectives.append(Distillation(probabilities, lengths, options.weight))
    if options := config.objectives.consistency:
        objectives.append(Consistency(options.weight))
    if first and share.processes > 1:
        wait_for_all("caches")
    step = TrainingStep(
        network, objectives, config.model.spec_augment, config.model.dropout, config.frozen_encoders
    )
    on_jax = keras.backend.backend() == "jax"
    batches = Batches(
        lengths,
        read,
        rate,
        config.data.batch_seconds,
        config.seed,
        workers=os.cpu_count() or 1,
        targets=step.targets,
        longest=longest,
        one_shape=on_jax,
        share=share,
    )

    # Optimizer
    steps = len(batches) * config.epochs
    optimizer = optimizer_class(
        WarmupLinearDecay(config.optimizer.learning_rate, int(config.optimizer.warmup * steps), steps),
        multipliers=config.optimizer.multipliers,
        weight_decay=config.optimizer.weight_decay,
        global_clipnorm=config.optimizer.clip_norm,
        gradient_accumulation_steps=config.optimizer.accumulate if config.optimizer.accumulate > 1 else None,
    )
    step.compile(optimizer=optimizer, jit_compile="auto" if on_jax else False)
    optimizer.build(step.trainable_variables)
    if config.devices == "all":
        distribute(state_of(step))

    # Loop
    if first and not (folder / CHECKPOINT).exists():
        (folder / BEST).unlink(missing_ok=True)  # of a run that was deleted
    go_on(batches, folder / CHECKPOINT)
    callbacks = [
        StopAtNaN(),  # before a checkpoint is written
        WordErrorRate(dev_sets, tokenizer),
        *callbacks,
        *([BestEpoch(folder / BEST)] if first and config.keep == "best" else []),
        ExactResume(folder / CHECKPOINT, config.checkpoint_steps, batches, saves=first),
    ]
    if first:
        callbacks.append(MetricsLog(folder / "metrics.jsonl"))
    if keras.backend.backend() == "tensorflow":  # through which Keras' callback writes
        callbacks.append(keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False))
    fit(step, batches, config.epochs, folder / CHECKPOINT, callbacks)
    if not first:
        return folder / "bundle"
    if config.keep == "best":
        load_state(folder / BEST, network.weights)
        print(f"the best epoch is {load_progress(folder / BEST)['epoch']}", file=sys.stderr)
    return save_bundle(folder / "bundle", network, tokenizer, vocabulary)
