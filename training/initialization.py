"""What a run starts from: its tokenizer, and weights of a Whisper encoder, an earlier run or a bundle."""

import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from asr.bundle import Bundle, variable_name, weights_path
from asr.model import CTCModel
from asr.tokenizer import ENGLISH_ALPHABET, Tokenizer, letters_of
from training.callbacks import CHECKPOINT
from training.config import ConfigError, RunConfig
from training.import_whisper import assign_whisper


def source_bundle(source: Path | None) -> Bundle | None:
    """The bundle that a run starts from; None for a Whisper encoder, or for chance."""
    if source is None or source.suffix == ".safetensors":
        return None
    return Bundle.load(source / "bundle" if (source / "bundle").is_dir() else source)


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


def initialize(network: CTCModel, tokenizer: Tokenizer, source: Path) -> None:
    """Takes over all weights that fit by name and shape; those of the head only where the units are the same.

    Raises ConfigError or BundleError where there is nothing to take.
    """
    bundle = source_bundle(source)
    path = source if bundle is None else weights_path(bundle.directory)
    try:
        if bundle is None:
            assign_whisper(network, load_file(path))
            return
        with safe_open(path, "numpy") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"initialize: {path}: {error}") from None
    if bundle.tokenizer.symbols != tokenizer.symbols:
        weights = {name: value for name, value in weights.items() if not name.startswith("output/")}
    taken = 0
    for variable in network.variables:
        name = variable_name(variable)
        value = weights.get(name)
        if value is not None and value.shape == tuple(variable.shape):
            variable.assign(value.astype("float32"))
            taken += 1
        elif "seed_generator" not in name:
            print(f"{path}: has no {name} for this model; it starts from chance", file=sys.stderr)
    if not taken:
        raise ConfigError(f"initialize: {path} holds no weight of this model: compare the encoders")
