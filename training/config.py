"""The schema of a training run, read from YAML; unknown keys and wrong types are refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml

from asr.files import reason


class ConfigError(ValueError):
    """One line: which file, which key, what is wrong with it."""


def _weighted(value: Any) -> Any:
    """One or several sources without weights, with the weight 1 each."""
    if value is None or isinstance(value, dict):
        return value or {}
    return dict.fromkeys(value if isinstance(value, list) else [value], 1.0)


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


PositiveInt = Annotated[int, pydantic.Field(gt=0)]
Positive = Annotated[float, pydantic.Field(gt=0)]
Fraction = Annotated[float, pydantic.Field(ge=0, le=1)]
Weight = Annotated[float, pydantic.Field(ge=0)]


class Model(_Section):
    """What `SpeechModel` is built from, except the units, and how its training is regularised."""

    encoders: list[dict[str, Any]]
    features: dict[str, Any] = {}
    # Without "vocabulary", the number of its tokens, it has those of the bundle in `initialize`.
    decoder: dict[str, Any] | None = None
    spec_augment: dict[str, Any] | None = None
    dropout: Fraction = 0.0  # of the last encoder's outputs


class Tokenizer(_Section):
    """The output units; see `asr.tokenizer.Tokenizer`."""

    language: str = "en"
    units: Literal["characters", "bpe"] = "characters"
    alphabet: str | None = None  # default: English letters for "en", else all letters of the texts
    size: PositiveInt = 500  # units in all, for "bpe"


class Augmentation(_Section):
    """Fractions of the training utterances that are changed in each way; see training/augmentation.py."""

    speed: Fraction = 0.0
    noise: Fraction = 0.0
    reverb: Fraction = 0.0
    telephone: Fraction = 0.0
    gain: Fraction = 0.0
    silence: Fraction = 0.0  # after the utterance
    babble: Fraction = 0.0  # of the recordings in `noise`: each becomes several voices of `train` at once


class Data(_Section):
    """Which speech, in which batches. Paths are relative to the current folder."""

    train: list[Path]
    dev: list[Path] = []
    # A manifest of sounds to mix in, and to learn (their first `max_seconds`) as utterances without words.
    noise: Path | None = None
    batch_seconds: Positive = 120.0  # of padded audio
    max_seconds: Positive = 24.0  # longer utterances are left out, and named
    augmentation: Augmentation = Augmentation()

    @pydantic.model_validator(mode="after")
    def _noise_needs_recordings(self):
        if self.augmentation.noise and self.noise is None:
            raise ValueError("augmentation.noise is above 0: name a manifest of recordings in data.noise")
        return self


class Optimizer(_Section):
    """AdamW with a linear warm-up and a linear decay to zero."""

    learning_rate: Positive = 1e-3
    multipliers: dict[str, Weight] = {}  # of the learning rate, by a part of the model, e.g. encoder_0: 0.1
    weight_decay: Weight = 0.01
    clip_norm: Positive = 1.0
    warmup: Fraction = 0.05  # of all steps
    accumulate: PositiveInt = 1  # batches a step, whose gradients are averaged


class CTC(_Section):
    """The CTC loss of the transcripts."""

    weight: Weight = 1.0


class Attention(_Section):
    """Cross-entropy of the decoder's tokens with the text as it is written, `text_cased` in the manifests."""

    weight: Weight = 1.0
    label_smoothing: Fraction = 0.0


class Distillation(_Section):
    """Cross-entropy with a larger model's probabilities of the units (Hinton et al. 2015)."""

    teacher: Path  # a bundle with the same units and steps
    weight: Weight = 0.5


class Consistency(_Section):
    """KL divergence between two augmented views of each utterance (CR-CTC): twice the work a step."""

    weight: Weight = 0.2


class Objectives(_Section):
    """The parts of the loss, which are added up by their weights; see training/objectives."""

    ctc: CTC = CTC()
    attention: Attention | None = None
    distillation: Distillation | None = None
    consistency: Consistency | None = None


class RunConfig(_Section):
    """One training run: `python -m training.train CONFIG [key=value ...]`."""

    output: Path  # the run folder
    model: Model
    data: Data
    tokenizer: Tokenizer | None = None  # default: that of the bundle in `initialize`, else English letters
    objectives: Objectives = Objectives()
    optimizer: Optimizer = Optimizer()
    epochs: PositiveInt = 10
    # A bundle or run folder, or several with the weight of each: variables that several have are averaged.
    initialize: Annotated[dict[Path, Positive], pydantic.BeforeValidator(_weighted)] = {}
    # The first n encoders are not trained; their outputs are cached.
    frozen_encoders: Annotated[int, pydantic.Field(ge=0)] = 0
    # Of each utterance through the frozen encoders: the first clean, the others augmented.
    cached_copies: PositiveInt = 1
    mixed_precision: bool = False  # bfloat16, for processors and GPUs that have it
    devices: Literal["one", "all"] = "one"  # each computes a part of every batch; needs JAX
    checkpoint_steps: PositiveInt = 200
    # Which epoch becomes the model; the best on the dev sets has the lowest loss of the decoder, or else WER.
    keep: Literal["last", "best"] = "last"
    seed: int = 0

    @pydantic.model_validator(mode="after")
    def _attention_needs_a_decoder(self):
        if (self.objectives.attention is None) != (self.model.decoder is None):
            raise ValueError("model.decoder and objectives.attention go together: give both")
        if self.frozen_encoders > (self.model.decoder or {}).get("encoders", len(self.model.encoders)):
            raise ValueError("frozen_encoders must all be below model.decoder, whose inputs they are")
        return self

    @pydantic.model_validator(mode="after")
    def _the_best_epoch_needs_a_dev_set(self):
        if self.keep == "best" and not self.data.dev:
            raise ValueError("keep is best: name a dev set in data.dev, on which epochs are compared")
        return self

    @pydantic.model_validator(mode="after")
    def _consistency_needs_masks(self):
        if self.objectives.consistency and self.model.spec_augment is None:
            raise ValueError("objectives.consistency needs model.spec_augment, so that two views differ")
        return self


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """The run that a YAML file describes, with overrides such as "optimizer.learning_rate=1e-4".

    Raises ConfigError for a missing file, bad YAML, unknown keys and values out of range.
    """
    try:
        content = _parse(path, Path(path).read_text(encoding="utf-8")) or {}
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: a config is a mapping of keys to values")
        for override in overrides:
            _override(content, override)
        return RunConfig.model_validate(content)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {reason(error)}") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))  # empty where keys do not go together
        raise ConfigError(": ".join(filter(None, [str(path), key, first["msg"]]))) from None


def _override(content: dict, override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator:
        raise ConfigError(f"{override!r}: write key=value, e.g. optimizer.learning_rate=1e-4")
    *sections, last = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise ConfigError(f"{override!r}: {section} is no section")
    content[last] = _parse(repr(override), value)


def _parse(source: Path | str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
