"""What a run starts from: its tokenizer, its vocabulary and weights, of earlier runs and bundles."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asr.bundle import Bundle, read_weights, variable_name, weights_path
from asr.model import SpeechModel
from asr.tokenizer import ENGLISH_ALPHABET, Tokenizer, letters_of
from asr.vocabulary import Vocabulary
from training.callbacks import CHECKPOINT
from training.config import ConfigError, RunConfig


def source_bundles(config: RunConfig) -> list[tuple[Bundle, float]]:
    """The bundles that a run starts from, some in run folders, and their weights in the average."""
    return [
        (Bundle.load(source / "bundle" if (source / "bundle").is_dir() else source), weight)
        for source, weight in config.initialize.items()
    ]


def tokenizer_of(config: RunConfig, folder: Path, texts: Sequence[str]) -> Tokenizer:
    """The run's own if it has begun already, else the config's, else that of the model it starts from."""
    path = folder / "tokenizer.json"
    if (folder / CHECKPOINT).exists() and path.exists():
        return Tokenizer.load(path)
    options = config.tokenizer
    if options is None:
        sources = [bundle for bundle, _ in source_bundles(config)]
        sources.sort(key=lambda bundle: bundle.has_ctc)  # the units of an imported Whisper are not trained
        tokenizer = sources[-1].tokenizer if sources else Tokenizer.characters()
    else:
        alphabet = options.alphabet or (ENGLISH_ALPHABET if options.language == "en" else letters_of(texts))
        if options.units == "bpe":
            tokenizer = Tokenizer.train_bpe(texts, options.language, alphabet, options.size)
        else:
            tokenizer = Tokenizer.characters(options.language, alphabet)
    tokenizer.save(path)
    return tokenizer


def vocabulary_of(config: RunConfig, texts: Sequence[str]) -> Vocabulary | None:
    """The decoder's tokens: as many as the config says, or those of the last model with some; else None.

    Args:
      texts: as they are written, to learn the tokens from.

    Raises ConfigError for a decoder without either.
    """
    if config.model.decoder is None:
        return None
    if size := config.model.decoder.get("vocabulary"):
        return Vocabulary.train(texts, size)
    for bundle, _ in reversed(source_bundles(config)):
        if bundle.vocabulary is not None:
            return bundle.vocabulary
    raise ConfigError("decoder: give the size of its vocabulary, or initialize from a model that has one")


def initialize(
    network: SpeechModel,
    tokenizer: Tokenizer,
    vocabulary: Vocabulary | None,
    sources: Sequence[tuple[Bundle, float]],
) -> None:
    """Takes over all variables that fit by name and shape; those in several sources are averaged.

    Those of the CTC head are taken only where the units are the same, the tokens' where the vocabulary is.

    Args:
      sources: bundles and their weights in the average.

    Raises ConfigError where there is nothing to take.
    """
    totals: dict[str, tuple[float, np.ndarray]] = {}
    shapes = {variable_name(variable): tuple(variable.shape) for variable in network.variables}
    for bundle, weight in sources:
        others = [
            *(["output/"] if bundle.tokenizer.symbols != tokenizer.symbols else []),
            *(["decoder/tokens/"] if bundle.vocabulary != vocabulary else []),
        ]
        for name, value in read_weights(weights_path(bundle.directory)).items():
            if shapes.get(name) == value.shape and not name.startswith(tuple(others)):
                total, values = totals.get(name, (0.0, 0.0))
                totals[name] = (total + weight, values + weight * value)
    names = ", ".join(str(bundle.directory) for bundle, _ in sources)
    if not totals:
        raise ConfigError(f"initialize: {names} holds no weight of this model: compare the encoders")
    for variable in network.variables:
        name = variable_name(variable)
        if name in totals:
            total, values = totals[name]
            variable.assign(values / total)
        elif "seed_generator" not in name:
            print(f"{names}: no {name} for this model; it starts from chance", file=sys.stderr)
