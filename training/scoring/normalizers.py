"""Normalisers of texts before their words are counted: a choice that changes WER by points."""

import functools
from collections.abc import Callable

from asr.tokenizer import letters_of, normalize

DESCRIPTIONS = {
    "english": "Whisper's English normaliser: spellings, numbers, contractions and fillers unified",
    "basic": "lower-case letters a–z and apostrophes, accents folded; the rest, digits too, dropped",
    "letters": "the same for every alphabet: letters in lower case with their accents, and apostrophes",
    "none": "texts as they are, split at white space",
}
DEFAULT = ("english", "basic")


def normalizer(name: str) -> Callable[[str], str]:
    """A function from a text to words with single spaces between them. `name` is a key of `DESCRIPTIONS`.

    "english" is that of the Whisper paper (Radford et al. 2022, appendix C), from whisper-normalizer.
    """
    if name == "english":
        from whisper_normalizer.english import EnglishTextNormalizer

        clean = EnglishTextNormalizer()
    else:
        clean = {"none": str, "basic": normalize, "letters": _letters}[name]
    # Cached, since timed words are normalised one by one, and "english" takes 0.3 ms for each text.
    return functools.cache(lambda text: " ".join(clean(text).split()))


def _letters(text: str) -> str:
    return normalize(text, letters_of([text]))
