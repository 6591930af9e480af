"""Normalisers of texts before their words are counted: a choice that changes WER by points."""

from collections.abc import Callable

from asr.tokenizer import letters_of, normalize

DESCRIPTIONS = {
    "none": "texts as they are, split at white space",
    "basic": "lower-case letters a–z and apostrophes, accents folded; the rest, digits too, dropped",
    "letters": "the same for every alphabet: letters in lower case with their accents, and apostrophes",
    "english": "Whisper's English normaliser: spellings, numbers, contractions and fillers unified",
}
DEFAULT = "basic"


def normalizer(name: str) -> Callable[[str], str]:
    """A function from a text to words with single spaces between them. `name` is a key of `DESCRIPTIONS`.

    "english" is that of the Whisper paper (Radford et al. 2022, appendix C), from whisper-normalizer.
    """
    if name == "english":
        from whisper_normalizer.english import EnglishTextNormalizer

        clean = EnglishTextNormalizer()
    else:
        clean = {"none": str, "basic": normalize, "letters": _letters}[name]
    return lambda text: " ".join(clean(text).split())


def _letters(text: str) -> str:
    return normalize(text, letters_of([text]))
