"""From text to the unit ids that a model outputs, and back: normaliser, units and language as one object."""

import json
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from asr.files import write_whole

BLANK_ID = 0  # the CTC blank; its symbol is the empty string
WORD_BOUNDARY = " "
APOSTROPHE = "'"
ENGLISH_ALPHABET = "'abcdefghijklmnopqrstuvwxyz"
_SPOKEN_SIGNS = "&@%#+="  # read aloud as words, like currency signs and digits
_METASPACE = "▁"  # how the tokenizers library writes a space
_UNITS_TXT_NAMES = {"<blank>": "", "<space>": WORD_BOUNDARY}  # bundles of format 1


@dataclass(frozen=True)
class Tokenizer:
    """The text side of a model.

    Attributes:
      language: code of the language, e.g. "en".
      alphabet: the characters that normalised texts consist of, beside single spaces.
      symbols: [size], the text of each unit. `symbols[0]` is "", the CTC blank. The first unit of a word may
        begin with the space before it (" the").
      bpe: a BPE model (Sennrich et al. 2016) in the tokenizers library's JSON, or None for characters.
    """

    language: str
    alphabet: str
    symbols: tuple[str, ...]
    bpe: str | None = None

    def __post_init__(self):
        if not self.symbols or self.symbols[BLANK_ID] != "":
            raise ValueError("unit 0 must be the CTC blank, written as the empty string")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError("a unit occurs twice")
        if self.bpe is None and (missing := set(self.alphabet) - set(self.symbols)):
            raise ValueError(f"no unit for {' '.join(sorted(missing))} of the alphabet")

    @classmethod
    def characters(cls, language: str = "en", alphabet: str = ENGLISH_ALPHABET) -> "Tokenizer":
        """One unit for each character of an alphabet, and one for the space."""
        return cls(language, alphabet, ("", WORD_BOUNDARY, *alphabet))

    @classmethod
    def train_bpe(cls, texts: Iterable[str], language: str, alphabet: str, size: int) -> "Tokenizer":
        """At most `size` subword units, learnt from texts by byte-pair encoding.

        Raises ValueError where `size` has no room for the blank, the space and the alphabet.
        """
        from tokenizers import Tokenizer as Library
        from tokenizers import models, pre_tokenizers, trainers

        if size < len(alphabet) + 2:
            raise ValueError(
                f"{size} units are too few: the blank, the space and the alphabet are {len(alphabet) + 2}"
            )
        library = Library(models.BPE())
        library.pre_tokenizer = pre_tokenizers.Metaspace(_METASPACE, prepend_scheme="always")
        letters = [_METASPACE, *alphabet]
        trainer = trainers.BpeTrainer(vocab_size=size - 1, initial_alphabet=letters, show_progress=False)
        library.train_from_iterator((normalize(text, alphabet) for text in texts), trainer)
        tokens = map(library.id_to_token, range(library.get_vocab_size()))
        symbols = ("", *(token.replace(_METASPACE, WORD_BOUNDARY) for token in tokens))
        return cls(language, alphabet, symbols, json.dumps(json.loads(library.to_str())))

    @property
    def size(self) -> int:
        """Number of units, the blank included: the width of the model's last layer."""
        return len(self.symbols)

    def normalize(self, text: str) -> str:
        """See the function `normalize`."""
        return normalize(text, self.alphabet)

    def lost(self, text: str) -> str:
        """See `lost_characters`."""
        return lost_characters(text, self.alphabet)

    def encode(self, text: str) -> list[int]:
        """Unit ids of a normalised text. Raises ValueError naming characters outside the alphabet.

        Subwords need the tokenizers library, or ImportError is raised.
        """
        if unknown := sorted(set(text) - {WORD_BOUNDARY, *self.alphabet}):
            raise ValueError(f"no unit for {' '.join(map(repr, unknown))}: normalise the text first")
        if self.bpe is None:
            return [self._ids[character] for character in text]
        return [id + 1 for id in self._library.encode(text).ids]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of unit ids, with single spaces. Blanks vanish, repeats stay."""
        return WORD_BOUNDARY.join("".join(self.symbols[id] for id in ids).split())

    def save(self, path: Path) -> None:
        """Writes JSON. Raises OSError."""
        content = {"language": self.language, "alphabet": self.alphabet, "symbols": self.symbols}
        content["bpe"] = None if self.bpe is None else json.loads(self.bpe)
        write_whole(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Reads what `save` wrote. Raises OSError, or ValueError where it is something else."""
        content = json.loads(path.read_text(encoding="utf-8"))
        try:
            bpe = None if content["bpe"] is None else json.dumps(content["bpe"])
            return cls(content["language"], content["alphabet"], tuple(content["symbols"]), bpe)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a tokenizer ({error})") from None

    @classmethod
    def load_units_txt(cls, path: Path, language: str) -> "Tokenizer":
        """Characters from the units.txt of a bundle of format 1, one a line."""
        lines = path.read_text(encoding="utf-8").splitlines()
        symbols = tuple(_UNITS_TXT_NAMES.get(line, line) for line in lines)
        return cls(language, "".join(symbols).replace(WORD_BOUNDARY, ""), symbols)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {symbol: id for id, symbol in enumerate(self.symbols)}

    @cached_property
    def _library(self):
        try:
            from tokenizers import Tokenizer as Library
        except ModuleNotFoundError:
            message = "to split text into subwords, install the tokenizers library: pip install tokenizers"
            raise ImportError(message) from None
        return Library.from_str(self.bpe)


def normalize(text: str, alphabet: str = ENGLISH_ALPHABET) -> str:
    """Lower-case characters of the alphabet and single spaces.

    A character outside the alphabet becomes its letter without accents if the alphabet has that ("é" → "e"),
    else a space. An apostrophe stays only where it touches a letter ("don't", "dogs'").
    """
    text = "".join(_folded(text, alphabet, lambda lost: WORD_BOUNDARY))
    return WORD_BOUNDARY.join(word for word in text.split() if word.strip(APOSTROPHE))


def lost_characters(text: str, alphabet: str = ENGLISH_ALPHABET) -> str:
    """The characters that `normalize` drops though they are spoken: letters, digits, signs such as "&".

    Each once, in the order of the text. A text that loses some does not say what is spoken.
    """

    def spoken(character: str) -> str:
        kind = unicodedata.category(character)
        return character if kind[0] in "LMN" or kind == "Sc" or character in _SPOKEN_SIGNS else ""

    characters = "".join(_folded(text, alphabet, spoken))
    return "".join(dict.fromkeys(character for character in characters if character not in alphabet))


def letters_of(texts: Iterable[str]) -> str:
    """An alphabet for texts in any language: their letters and marks in lower case, and the apostrophe."""
    characters = sorted(set().union(*map(_lower, texts)))
    return APOSTROPHE + "".join(c for c in characters if unicodedata.category(c)[0] in "LM")


def _lower(text: str) -> str:
    return unicodedata.normalize("NFC", text.replace("’", APOSTROPHE).casefold())


def _folded(text: str, alphabet: str, replace: Callable[[str], str]) -> Iterable[str]:
    """Each character if it is of the alphabet, else its decomposition; `replace` what is in neither."""
    for character in _lower(text):
        if character in alphabet:
            yield character
            continue
        for part in unicodedata.normalize("NFKD", character):
            if part in alphabet:
                yield part
            elif not unicodedata.combining(part):
                yield replace(part)
