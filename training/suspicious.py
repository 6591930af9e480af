"""Recordings and texts to look at before a model is trained on them.

The text is aligned with the sound by an existing model (CTC forced alignment), and compared with the path
that this model finds best itself. The sound is measured, and searched for speech.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from asr.decoding.alignment import forced_align
from asr.decoding.greedy import greedy_decode
from asr.engine import Engine
from asr.segmentation import cut_utterances
from asr.tokenizer import Tokenizer
from training.manifest import Entry
from training.speech import Speech

# Mean power, against full scale. Of 385 clips of dev-read, dev-accent and dev-voice the softest has -49 dB.
QUIET_DB = -50.0
# Share of the samples at full scale; one in a hundred clips of dev-voice has more than 0.00015.
CLIPPED, FULL_SCALE = 1e-3, 0.99
# Nats for each letter by which a text is less probable than the model's own. With `english`, 99 % of the
# right texts of dev-read, dev-accent, dev-voice and an4-test have less (1.1, 1.8, 1.8, 1.3), and 99 % of the
# texts of other clips have more (5.4, 2.1, 2.3, 3.1). So has half of the texts without their second half.
MISFIT_NATS = 2.0
MOST_LETTERS = 60  # of a text in a reason


@dataclass(frozen=True)
class Finding:
    """What is suspicious about an utterance.

    Attributes:
      entry: of the manifest.
      reasons: in words, at least one.
      nats: for each letter, by which the text is less probable than the recognised; infinite if impossible.
      recognised: text of the model's best path.
      unusable: whether neither voice nor words are found where there should be some.
    """

    entry: Entry
    reasons: tuple[str, ...]
    nats: float
    recognised: str
    unusable: bool = False


def suspicious(
    speech: Speech, engine: Engine, tokenizer: Tokenizer, progress: Callable = iter
) -> list[Finding]:
    """The suspicious utterances: first those whose text fits least."""
    found = []
    for i in progress(range(len(speech))):
        samples = speech[i]
        finding = examine(speech.entries[i], samples, engine.log_probs(samples), tokenizer)
        if finding.reasons:
            found.append(finding)
    return sorted(found, key=lambda one: (not one.unusable, -one.nats))


def examine(entry: Entry, samples: np.ndarray, log_probs: np.ndarray, tokenizer: Tokenizer) -> Finding:
    """What is wrong with one utterance; without reasons where nothing is.

    Args:
      samples: float32 [samples] at 16 kHz.
      log_probs: [steps, units], of the model.
    """
    text, own = tokenizer.normalize(entry.text), greedy_decode(log_probs, tokenizer)
    reasons = []
    has_voice = any(True for _ in cut_utterances([samples]))
    if text and not has_voice:
        reasons.append("there is no voice")
    level_db = 10 * np.log10(max(np.mean(np.square(samples, dtype="float64")), 1e-12))
    if has_voice and level_db < QUIET_DB:
        reasons.append(f"too quiet: {level_db:.0f} dB")
    clipped = np.mean(np.abs(samples) >= FULL_SCALE)
    if clipped > CLIPPED:
        reasons.append(f"clipped: {100 * clipped:.1f} % of it is at full scale")
    units = tokenizer.encode(text)
    try:
        shortfall = own.score - forced_align(log_probs, units).score
    except ValueError:  # there is no room for the text
        shortfall = np.inf
    nats = float(shortfall / max(len(units), len(own.units), 1))
    if nats > MISFIT_NATS:
        reasons.append(f"the text does not fit: {nats:.1f} nats a letter")
    unusable = bool(text) and not has_voice and not own.text
    return Finding(entry, tuple(reasons), nats, own.text, unusable)


def shortened(text: str) -> str:
    """A text for a table."""
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1].rstrip() + "…"
