"""Degraded sound: the same for every recogniser and in every run."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asr.audio import SAMPLE_RATE
from training.manifest import read_manifest

CLEAN = "clean"  # the condition that changes nothing


def degrade(
    samples: np.ndarray, utterance: str, condition: str, noise_files: Sequence[Path] = (), seed: int = 0
) -> np.ndarray:
    """float32 samples at 16 kHz under a condition.

    Args:
      samples: as they were read.
      utterance: id, on which the noise and the room depend, whatever its place in the manifest.
      condition: CLEAN, or what `training.augmentation.apply_condition` knows.
      noise_files: noise for the conditions that add it.
      seed: of all degradation.

    Raises:
      ValueError: an unknown condition, or no noise where it is needed.
    """
    if condition == CLEAN:
        return samples
    # Loaded late, since the seconds it takes would count as a recogniser's cold start.
    from training.augmentation import apply_condition

    return apply_condition(samples, condition, zlib.crc32(f"{seed} {utterance}".encode()), noise_files)


def noise_files_of(manifest: Path | None) -> list[Path]:
    """The recordings that a manifest of noise names; none without one."""
    return [entry.audio for entry in read_manifest(manifest)] if manifest else []


def check_conditions(conditions: Sequence[str], noise_files: list[Path]) -> None:
    """Finds a misspelt condition before hours are spent on the others. Raises ValueError."""
    for condition in conditions:
        degrade(np.zeros(SAMPLE_RATE, np.float32), "", condition, noise_files)
