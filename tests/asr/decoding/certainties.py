"""Log-probs written by hand: which unit is heard in each step, and how surely."""

import numpy as np

from asr.tokenizer import Tokenizer

UNITS = Tokenizer.characters()


def tokenizer_of(*symbols: str) -> Tokenizer:
    """Units for decoding only; what is a single letter is the alphabet."""
    alphabet = "".join(symbol for symbol in symbols if len(symbol.strip()) == len(symbol) == 1)
    return Tokenizer("en", alphabet, symbols)


def log_probs_of(path: str, probability: float = 0.9, units: Tokenizer = UNITS) -> np.ndarray:
    """A step a character, `probability` for it and equal shares for the rest; "_" is the blank."""
    return peaks([(character.replace("_", ""), probability) for character in path], units)


def peaks(steps: list[tuple[str, float]], units: Tokenizer = UNITS) -> np.ndarray:
    rows = np.empty((len(steps), units.size), np.float32)
    for row, (symbol, probability) in zip(rows, steps, strict=True):
        row[:] = (1 - probability) / (units.size - 1)
        row[units.symbols.index(symbol)] = probability
    return np.log(rows)
