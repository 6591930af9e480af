"""Voices of which nothing can be made out: several people at once, or speech backwards."""

import re

import numpy as np

from asr.decoding import Hypothesis

# Sound is expected to hold so many letters a second, spaces included: people say 5 to 17, slow learners 3.
LETTERS_A_SECOND = 3.25
# Nothing is said where the seconds without letters, times the doubt of the letters, exceed this. The doubt is
# greater where CTC finds the decoder's text improbable.
MOST_DOUBT = 3.5
# Nor where the tokens of the decoder's text have a mean log-probability below the one, as in Whisper, and CTC
# finds this text less probable than its own path by so many nats a letter.
TOKEN_LOG_PROB, SHORTFALL = -1.0, 2.0
# A text with so many single letters, half of its words or more, is spelled ("F-I-N-D", "A M S J seven"). That
# takes its time, and is no babble.
SPELLED_LETTERS = 3


def is_babble(
    by_ctc: Hypothesis, log_probs: np.ndarray, step_seconds: float, token_log_prob: float, shortfall: float
) -> bool:
    """Whether nothing is said, by what the two heads make of it.

    Babble lasts long for its few letters. CTC is not sure of them, and finds the decoder's text improbable.

    Args:
      by_ctc: the letters by CTC, one at least.
      log_probs: of CTC, [steps, units].
      step_seconds: length of a step in seconds.
      token_log_prob: mean of the tokens of the decoder's own text.
      shortfall: nats for each letter by which CTC finds that text less probable than its own best path.
    """
    of_letters = [
        log_probs[first : last + 1, unit].max()
        for unit, (first, last) in zip(by_ctc.units, by_ctc.steps, strict=True)
    ]
    right_letters = np.exp(of_letters).sum()  # to be expected
    seconds_without = len(log_probs) * step_seconds - right_letters / LETTERS_A_SECOND
    doubt = -np.mean(of_letters) * (1 + shortfall)
    return seconds_without * doubt > MOST_DOUBT or (token_log_prob < TOKEN_LOG_PROB and shortfall > SHORTFALL)


def is_spelled(text: str) -> bool:
    """Whether somebody spells."""
    words = re.findall(r"[^\W\d_]+", text)
    letters = sum(len(word) == 1 for word in words)
    return letters >= max(SPELLED_LETTERS, len(words) / 2)
