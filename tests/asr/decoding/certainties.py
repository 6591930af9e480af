"""Hand-made log-probs: the most probable unit of each step, and its probability."""

import numpy as np

from asr.tokenizer import Tokenizer

UNITS = Tokenizer.characters()


def tokenizer_of(*symbols: str) -> Tokenizer:
    """A tokenizer for decoding only; its alphabet is the single letters among the symbols."""
    alphabet = "".join(symbol for symbol in symbols if len(symbol.strip()) == len(symbol) == 1)
    return Tokenizer("en", alphabet, symbols)


def log_probs_of(path: str, probability: float = 0.9, units: Tokenizer = UNITS) -> np.ndarray:
    """One step per character, with this `probability`; the rest is uniform. "_" is the blank."""
    return peaks([(character.replace("_", ""), probability) for character in path], units)


def peaks(steps: list[tuple[str, float]], units: Tokenizer = UNITS) -> np.ndarray:
    rows = np.empty((len(steps), units.size), np.float32)
    for row, (symbol, probability) in zip(rows, steps, strict=True):
        row[:] = (1 - probability) / (units.size - 1)
        row[units.symbols.index(symbol)] = probability
    return np.log(rows)
