"""When each word of a known text is spoken."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from asr.decoding.words import words_of
from asr.tokenizer import Tokenizer
from asr.transcript import Segment, Word

if TYPE_CHECKING:
    from asr.bundle import Bundle


def aligned_segments(
    bundle: Bundle, text: str, starts: Sequence[float], log_probs: Sequence[np.ndarray]
) -> list[Segment]:
    """The segments of a text that is spoken in some utterances; words keep their spelling.

    Args:
      starts: of the utterances, in seconds.
      log_probs: [steps, units] of each.

    Raises ValueError where the text has no words, or more than the utterances have room for.
    """
    from asr.decoding.alignment import forced_align

    tokenizer, step_seconds = bundle.tokenizer, bundle.step_seconds
    # Which words are in which utterance is not known, so all are aligned in one go, on steps.
    joined = np.concatenate(log_probs)
    aligned = forced_align(joined, tokenizer.encode(tokenizer.normalize(text)))
    calibration = bundle.config.get("confidence", {}).get("greedy")
    step_words = iter(words_of(aligned, joined, tokenizer, 1, calibration))
    steps = list(map(len, log_probs))
    step_starts = np.repeat(starts, steps) + step_seconds * np.concatenate(list(map(np.arange, steps)))
    step_utterances = np.repeat(np.arange(len(starts)), steps)
    found: list[tuple[int, Word]] = []
    for written, count in _written_words(text, tokenizer):
        parts = list(islice(step_words, count))
        first, last = round(parts[0].start), round(parts[-1].end) - 1
        start, end = float(step_starts[first]), float(step_starts[last]) + step_seconds
        confidence = min(part.confidence for part in parts)
        found.append((step_utterances[first], Word(written, start, end, confidence)))
    return [Segment.of([word for _, word in group]) for _, group in groupby(found, key=itemgetter(0))]


def _written_words(text: str, tokenizer: Tokenizer) -> list[tuple[str, int]]:
    """The words as written, each with its number of words when normalised: ("twenty-one,", 2).

    A token without letters ("–") is joined to the word before it, or at the beginning to the word after it.
    """
    written: list[tuple[str, int]] = []
    for token in text.split():
        count = len(tokenizer.normalize(token).split())
        if written and 0 in (count, written[-1][1]):
            before, before_count = written.pop()
            token, count = f"{before} {token}", before_count + count
        written.append((token, count))
    return written
