"""What the network is given: augmented samples, or the cached outputs of its frozen encoders."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from asr.audio import SAMPLE_RATE
from asr.features import FRAME_SECONDS
from asr.model import SpeechModel
from asr.tokenizer import Tokenizer
from asr.vocabulary import Vocabulary
from training.augmentation import BABBLE_VOICES, augment, babble, longest
from training.callbacks import DevSet
from training.config import ConfigError, RunConfig
from training.data import Batches
from training.frozen import EncodedSpeech, FrozenEncoders
from training.manifest import distinct_names, read_manifest
from training.scoring.console import progress
from training.speech import Speech, read_speech

ENCODING_BATCH_SECONDS = 240.0  # where nothing has to be kept for gradients


def read_noise(config: RunConfig, tokenizer: Tokenizer, folder: Path) -> Speech:
    """The noise recordings up to the longest utterance's length, as utterances without words."""
    entries = []
    for entry in read_manifest(config.data.noise) if config.data.noise else []:
        seconds = min(entry.duration_seconds, config.data.max_seconds)
        entries.append(replace(entry, text="", duration_seconds=seconds))
    return read_speech(entries, tokenizer, folder, progress=progress("decoding noise"))


def training_inputs(
    config: RunConfig, network: SpeechModel, speech: Speech, noise: Speech, cache: Path
) -> tuple[np.ndarray, Callable[[int, np.random.Generator], np.ndarray], float, np.ndarray]:
    """Lengths, reader and rate of the inputs, and lengths that are never exceeded, in whatever augmentation.

    The inputs are augmented samples, or outputs of frozen encoders. Utterances from `len(speech)` on are the
    noise.
    """
    probabilities = config.data.augmentation.model_dump()
    lengths = np.concatenate([speech.lengths, noise.lengths])

    def read_clean(i: int, _: np.random.Generator) -> np.ndarray:
        return speech[i] if i < len(speech) else noise[i - len(speech)]

    def read_augmented(i: int, random: np.random.Generator) -> np.ndarray:
        samples = read_clean(i, random)
        if i >= len(speech) and random.random() < probabilities["babble"]:
            voices = random.integers(len(speech), size=random.integers(*BABBLE_VOICES, endpoint=True))
            samples = babble([speech[int(voice)] for voice in voices], len(samples), random)
        return augment(samples, random, probabilities, noise)

    frozen = config.frozen_encoders
    if not frozen:
        return lengths, read_augmented, SAMPLE_RATE, longest(lengths, probabilities)
    copies = []
    for copy in range(config.cached_copies):
        read, seed = (read_augmented if copy else read_clean), config.seed + copy
        batches = Batches(lengths, read, SAMPLE_RATE, ENCODING_BATCH_SECONDS, seed=seed, workers=2)
        content = [speech.key, noise.key, probabilities if copy else None, seed]
        folder, shown = cache / f"encoded-train-{copy}", progress(f"encoding copy {copy}")
        copies.append(EncodedSpeech(FrozenEncoders(network, frozen), batches, folder, content, shown))

    def read_copy(i: int, random: np.random.Generator) -> np.ndarray:
        return copies[int(random.integers(len(copies)))].read(i)

    frame_seconds = FRAME_SECONDS * math.prod(encoder.subsampling for encoder in network.encoders[:frozen])
    greatest = np.max([copy.lengths for copy in copies], axis=0)
    return copies[0].lengths, read_copy, 1 / frame_seconds, greatest


def dev_set(
    config: RunConfig,
    network: SpeechModel,
    tokenizer: Tokenizer,
    manifest: Path,
    cache: Path,
    vocabulary: Vocabulary | None = None,
) -> DevSet:
    """Every utterance of a dev manifest, through the frozen encoders where there are any.

    Args:
      vocabulary: of the decoder, which is measured on the utterances with `text_cased`.
    """
    name, *_ = distinct_names([manifest, *(other for other in config.data.dev if other != manifest)])
    folder = name.replace("/", "+")
    speech = read_speech(read_manifest(manifest), tokenizer, cache / f"dev-{folder}", progress=progress(name))
    if not len(speech):
        raise ConfigError(f"{manifest}: nothing is left to measure on")

    tokens, prompt = [], 0
    if vocabulary is not None and any(speech.written):
        prompt = len(vocabulary.prompt)
        texts = [[] if text is None else vocabulary.around(text) for text in speech.written]
        tokens = [np.array(ids if len(ids) <= network.decoder.max_tokens else [], "int32") for ids in texts]

    def targets(i: int, _: np.ndarray) -> dict[str, np.ndarray]:
        return {"tokens": tokens[i]} if tokens else {}

    def batches_of(read) -> Batches:
        return Batches(speech.lengths, read, SAMPLE_RATE, ENCODING_BATCH_SECONDS, targets=targets)

    batches = batches_of(lambda i, _: speech[i])
    texts = [speech.texts[i] for utterances in batches.plan for i in utterances]
    if config.frozen_encoders:
        frozen, shown = FrozenEncoders(network, config.frozen_encoders), progress(f"encoding {name}")
        encoded = EncodedSpeech(frozen, batches, cache / f"encoded-dev-{folder}", speech.key, shown)
        batches = batches_of(lambda i, _: encoded.read(i))
    return DevSet(name, batches, texts, prompt)
