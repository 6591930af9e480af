"""Normalisers of texts before their words are counted: a choice that changes WER by points."""

import functools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from asr.tokenizer import letters_of, lost_characters, normalize

if TYPE_CHECKING:  # --help need not wait for NumPy
    from training.scoring.transcripts import Reference

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

        english = EnglishTextNormalizer()

        def clean(text: str) -> str:
            try:
                return english(_quick(text))
            except AssertionError:
                message = "the normaliser english reads no number of thousands of digits; choose another"
                raise ValueError(f"{message} (--normalizer), or correct {text[:40]!r}") from None
    else:
        clean = {"none": str, "basic": normalize, "letters": _letters}[name]
    # Cached, since timed words are normalised one by one, and "english" takes 0.3 ms for each text.
    return functools.cache(lambda text: " ".join(clean(text).split()))


def _quick(text: str) -> str:
    """A text that "english" makes the same of, in time that does not grow with the square of its length.

    It drops what is in <>, [] and (), and looks at all that follows each bracket that nothing closes, and
    each of many spaces. Here such brackets become "{": all signs of punctuation end as spaces there.
    """
    text = re.sub(r"[<\[][^>\]]*[>\]]", "", _closed(text, "<[", ">]"))
    return re.sub(r"\s{3,}", "  ", _closed(text, "(", ")"))


def _closed(text: str, brackets: str, closing: str) -> str:
    end = max(map(text.rfind, closing)) + 1
    return text[:end] + text[end:].translate(dict.fromkeys(map(ord, brackets), "{"))


def _letters(text: str) -> str:
    return normalize(text, letters_of([text]))


def texts_lost(
    references: "Sequence[Reference]", normalizers: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """What "basic" takes away: why, by id, of references that it makes empty though something is spoken; and
    what texts lose that keep some of their characters. The other normalisers lose no letters.

    The first are to be left out under every normaliser, so that all are measured on the same speech.
    """
    empty: dict[str, str] = {}
    lossy: list[str] = []
    for one in references if "basic" in normalizers else ():
        lost = [] if one.ignored else lost_characters(one.text)
        if lost and normalize(one.text):
            lossy.append(f"{' '.join(lost)} of {one.id}")
        elif lost:
            empty[one.id] = (
                f"{one.id}: nothing is left of {one.text[:40]!r} in the normaliser basic; "
                "choose other normalisers (--normalizer)"
            )
    return empty, lossy
