"""A trained model as a folder: model.json, tokenizer.json, weights.safetensors, and what may come with them.

english/
  model.json           format version, features, encoders, decoder, step length; confidence calibration, WER
  weights.safetensors  float16, large matrices also int8 with the scales of their output channels beside them
  tokenizer.json       normaliser, units and language (format 1: units.txt, and the language in model.json)
  vocabulary.json      tokens of the attention decoder, where there is one
  engine.onnx          the exported graph, which reads the weights (optional): python -m training.export
  decoder.onnx         likewise a step of the attention decoder
  lm/                  language model and tuned weights (optional)
  README.md            model card
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from asr.files import reason, write_whole
from asr.tokenizer import Tokenizer
from asr.vocabulary import Vocabulary

if TYPE_CHECKING:
    from asr.model import SpeechModel

FORMAT_VERSION = 3  # the first with weights in int8
READABLE_VERSIONS = (1, 2, 3)
SCALE = "/scale"  # ends the name of the scales of a matrix in int8
SILENCE_SECONDS = 0.5  # after each utterance, as in training
SMALLEST_SCALE = 2.0**-24  # of float16
MODELS = Path(__file__).parent / "models"  # the shipped bundles
REQUIRED = ("features", "encoders", "step_seconds")


class BundleError(ValueError):
    """One line: which file, what is wrong, what to do."""


@dataclass(frozen=True)
class Bundle:
    """A trained model on disk."""

    directory: Path
    config: dict  # model.json
    tokenizer: Tokenizer
    vocabulary: Vocabulary | None = None  # of the attention decoder

    @classmethod
    def load(cls, name_or_directory: str | Path) -> "Bundle":
        """A shipped bundle by name, or any by its folder. Reads no weights.

        Raises BundleError for an unknown name, a missing or broken file, or an unknown format version.
        """
        directory = Path(name_or_directory)
        if not directory.is_dir() and (MODELS / directory).is_dir():
            directory = MODELS / directory
        if not directory.is_dir():
            names = ", ".join(bundle.name for bundle in available_bundles()) or "none"
            raise BundleError(f"{name_or_directory}: no such model; give a folder, or a name of: {names}")
        config = _read_config(directory / "model.json")
        vocabulary = _read_vocabulary(directory / "vocabulary.json") if config.get("decoder") else None
        return cls(directory, config, _read_tokenizer(directory, config), vocabulary)

    @property
    def name(self) -> str:
        return self.directory.resolve().name

    @property
    def step_seconds(self) -> float:
        """Length of one step of the model's log-probs."""
        return self.config["step_seconds"]

    @property
    def has_ctc(self) -> bool:
        """False of an attention decoder alone, such as an imported Whisper."""
        return self.config.get("ctc", True)

    @property
    def silence_seconds(self) -> float:
        """Silence that the decoder needs after each utterance; Whisper was trained on windows of 30 s."""
        return self.config.get("silence_seconds", SILENCE_SECONDS if self.vocabulary else 0.0)

    @property
    def has_language_model(self) -> bool:
        return (self.directory / "lm" / "config.json").exists()

    def build_model(self) -> "SpeechModel":
        """The Keras model with its weights. Raises BundleError where they do not fit or are not finite."""
        from asr.model import SpeechModel

        try:
            model = SpeechModel(
                self.tokenizer.size if self.has_ctc else None,
                self.config["encoders"],
                self.config["features"],
                self.config.get("decoder"),
            ).build_for()
        except (TypeError, ValueError) as error:
            raise BundleError(f"{self.directory / 'model.json'}: {error}") from None
        path = weights_path(self.directory)
        weights = read_weights(path)
        for name, variable in stored_variables(model).items():
            value, expected = weights.get(name), tuple(variable.shape)
            if value is None or value.shape != expected:
                found = "missing" if value is None else f"of shape {value.shape}"
                raise BundleError(f"{path}: {name} is {found}, not {expected}; export the model again")
            if not np.all(np.isfinite(value)):
                raise BundleError(f"{path}: {name} is not finite; train from an earlier checkpoint")
            variable.assign(value)
        return model


def available_bundles() -> list[Bundle]:
    """The shipped bundles, by name."""
    return [Bundle.load(path.parent) for path in sorted(MODELS.glob("*/model.json"))]


def save_bundle(
    directory: Path, model: "SpeechModel", tokenizer: Tokenizer, vocabulary: Vocabulary | None = None
) -> Path:
    """Writes model.json, tokenizer.json, vocabulary.json and float16 weights; returns the folder.

    Raises BundleError, before it writes anything, where a weight is not finite in float16.
    """
    with np.errstate(over="ignore"):
        weights = {
            name: variable.numpy().astype("float16") for name, variable in stored_variables(model).items()
        }
    for name, value in weights.items():
        if not np.all(np.isfinite(value)):
            raise BundleError(
                f"{directory}: {name} is not finite in float16; train from an earlier checkpoint"
            )
    config = {
        "features": model.feature_options,
        "encoders": model.descriptions,
        "step_seconds": model.step_seconds,
    }
    if model.decoder is not None:
        config |= {"ctc": model.output_layer is not None, "decoder": model.decoder_description}
    return write_bundle(directory, config, tokenizer, weights, vocabulary)


def write_bundle(
    directory: Path,
    config: dict,
    tokenizer: Tokenizer,
    weights: dict[str, np.ndarray],
    vocabulary: Vocabulary | None = None,
) -> Path:
    """Writes the files of a bundle, each aside and renamed; returns the folder."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {**config, "format_version": FORMAT_VERSION}
    write_whole(directory / "model.json", json.dumps(config, indent=2) + "\n")
    tokenizer.save(directory / "tokenizer.json")
    if vocabulary is not None:
        vocabulary.save(directory / "vocabulary.json")
    write_whole(weights_path(directory), save(weights))
    return directory


def weights_path(directory: Path) -> Path:
    return directory / "weights.safetensors"


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The float32 weights of a file by name. Raises BundleError where it cannot be read."""
    try:
        with safe_open(path, "numpy") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path}: {error}; a bundle needs its weights") from None
    scales = {name.removesuffix(SCALE): stored.pop(name) for name in list(stored) if name.endswith(SCALE)}
    return {
        name: value.astype("float32") * (scales[name].astype("float32") if name in scales else 1)
        for name, value in stored.items()
    }


def store_in_8_bits(bundle: Bundle) -> None:
    """Rewrites the weights with kernels and token embeddings in int8, at half the size and a small loss.

    Each output channel has its own scale, in float16: a kernel [in, out] is codes × NAME/scale [1, out], the
    token embeddings [tokens, width] are codes × NAME/scale [tokens, 1]. Matrices in int8 stay as they are.
    """
    stored = {}
    for name, value in read_weights(weights_path(bundle.directory)).items():
        if value.ndim != 2 or not name.endswith(("kernel", "tokens/embeddings")):
            stored[name] = value.astype("float16")
            continue
        largest = np.abs(value).max(axis=0 if name.endswith("kernel") else 1, keepdims=True)
        scale = np.maximum(largest / 127, SMALLEST_SCALE).astype("float16")
        codes = np.clip(np.round(value / scale.astype("float32")), -127, 127)
        stored |= {name: codes.astype("int8"), name + SCALE: scale}
    write_bundle(bundle.directory, bundle.config, bundle.tokenizer, stored, bundle.vocabulary)


def weights_digest(path: Path) -> str:
    """Checksum of a weights file, by which an exported graph knows its own."""
    return f"{zlib.crc32(path.read_bytes()):08x}"


def variable_name(variable) -> str:
    """Name of a Keras variable in the file: its path without the model's own name."""
    return variable.path.partition("/")[2]


def stored_variables(model: "SpeechModel") -> dict:
    """The variables of a bundle by name: all except the states of random generators."""
    return {variable_name(v): v for v in model.weights if "seed_generator" not in v.path}


def _read_config(path: Path) -> dict:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; a bundle needs it") from None
    except ValueError as error:
        raise BundleError(f"{path}: not JSON ({error}); export the model again") from None
    version = config.get("format_version") if isinstance(config, dict) else None
    if version not in READABLE_VERSIONS:
        raise BundleError(
            f"{path}: format version {version}, this Hark reads {FORMAT_VERSION}; update Hark or export again"
        )
    if missing := [key for key in REQUIRED if key not in config]:
        raise BundleError(f"{path}: lacks {', '.join(missing)}; export the model again")
    return config


def _read_tokenizer(directory: Path, config: dict) -> Tokenizer:
    old = config["format_version"] == 1
    path = directory / ("units.txt" if old else "tokenizer.json")
    try:
        return Tokenizer.load_units_txt(path, config.get("language", "en")) if old else Tokenizer.load(path)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: {reason(error)}; export the model again") from None


def _read_vocabulary(path: Path) -> Vocabulary:
    try:
        return Vocabulary.load(path)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: {reason(error)}; export the model again") from None
