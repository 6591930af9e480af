"""How to train a model further on so many hours of speech."""

from math import inf
from pathlib import Path
from typing import NamedTuple

from asr.bundle import Bundle
from training.config import RunConfig

MAX_SECONDS = 24.0  # of an utterance; Whisper's encoder takes 30 s, with silence and a slower speed


class Recipe(NamedTuple):
    """How to train on so many hours.

    Attributes:
      hours: up to which it is for.
      held_out: share of the speech to measure on.
      frozen_encoders: computed once, by which a step is faster and less can be learnt by heart.
      epochs, batch_seconds, learning_rate: as in `RunConfig`.
    """

    hours: float
    held_out: float
    frozen_encoders: int
    epochs: int
    batch_seconds: float
    learning_rate: float


# Careful values, not tuned on voices yet. What is Whisper's learns at LOW_RATE of the rate, 1e-5 to 2e-5:
# at 3.5e-5 (training/configs/english.yaml) the decoder knew 22 hours by heart after three epochs
# (training/results/joint.md). The upper encoder and the head have 1e-4 to 2e-4, english.yaml 3.5e-4. Epochs
# and batches give some 250 to 1,200 steps from five minutes to ten hours. Of little speech a fifth is held
# out: a minute has 150 words, on which a difference of a few points is chance.
RECIPES = (
    Recipe(0.25, held_out=0.2, frozen_encoders=1, epochs=16, batch_seconds=16, learning_rate=1e-4),
    Recipe(0.75, held_out=0.2, frozen_encoders=1, epochs=10, batch_seconds=32, learning_rate=1.5e-4),
    Recipe(3.0, held_out=0.1, frozen_encoders=0, epochs=6, batch_seconds=48, learning_rate=2e-4),
    Recipe(inf, held_out=0.1, frozen_encoders=0, epochs=3, batch_seconds=96, learning_rate=2e-4),
)
LOW_RATE = 0.1  # of the decoder and of all encoders but the last, as in english.yaml
CACHED_COPIES = 5  # of each utterance through the frozen encoders; with `english` each has 140 MB an hour
# As english.yaml, but for the noise and the telephone: the voice is known by its own microphone.
AUGMENTATION = {"speed": 0.4, "gain": 0.5, "reverb": 0.1}
SILENCE = 0.9  # for a decoder, which else depends on where a recording stops
CTC_WEIGHT = 0.3  # beside the decoder's


def recipe_for(hours: float) -> Recipe:
    """The recipe for so much speech, dev set included."""
    return next(recipe for recipe in RECIPES if hours <= recipe.hours)


def run_config(start: Bundle, recipe: Recipe, output: Path) -> RunConfig:
    """The run of a recipe that starts from a model.

    Args:
      output: with train.jsonl and dev.jsonl.
    """
    encoders, features = start.config["encoders"], start.config["features"]
    decoder = start.config.get("decoder")
    frozen = min(recipe.frozen_encoders, len(encoders) - 1)
    # A tenth of the frozen encoders' width, as in english-head.yaml; or a quarter of the mels: english.yaml.
    masked = encoders[frozen - 1]["width"] // 10 if frozen else features.get("mels", 80) // 4
    low = [*(f"encoder_{i}" for i in range(len(encoders) - 1)), "decoder"]
    return RunConfig(
        output=output / "run",
        initialize={start.directory: 1.0},
        model={
            "encoders": encoders,
            "features": features,
            # Without the number of its tokens, which would be learnt anew.
            "decoder": decoder and {name: decoder[name] for name in decoder if name != "vocabulary"},
            "spec_augment": {"frequency_width": masked, "time_width": 20, "time_fraction": 0.1},
            "dropout": 0.1,
        },
        data={
            "train": [output / "train.jsonl"],
            "dev": [output / "dev.jsonl"],
            "batch_seconds": recipe.batch_seconds,
            "max_seconds": MAX_SECONDS,
            "augmentation": {**AUGMENTATION, "silence": SILENCE if decoder else 0.0},
        },
        objectives={
            "ctc": {"weight": CTC_WEIGHT if decoder else 1.0},
            "attention": {"weight": 1 - CTC_WEIGHT} if decoder else None,
        },
        optimizer={
            "learning_rate": recipe.learning_rate,
            "multipliers": dict.fromkeys(low, LOW_RATE),
            "clip_norm": 5.0,
        },
        epochs=recipe.epochs,
        frozen_encoders=frozen,
        cached_copies=CACHED_COPIES,
        keep="best",
    )
