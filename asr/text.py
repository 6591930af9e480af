"""Text normalisation, and the units (characters) that a model writes: text ⇄ ids."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

BLANK_ID = 0  # the CTC blank; a model's other units follow in the order of units.txt
WORD_BOUNDARY = " "
_BLANK_LINE = "<blank>"
_SPACE_LINE = "<space>"  # a line holding one blank would not survive editors that trim lines


def normalize(text: str) -> str:
    """Lower-case letters a–z, apostrophes and single spaces; accents are folded, all else separates words.

    An apostrophe stays only where it touches a letter ("don't", "dogs'"), so a quote standing alone goes.
    """
    text = unicodedata.normalize("NFKD", text.casefold().replace("’", "'"))
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = "".join(c if "a" <= c <= "z" or c == "'" else WORD_BOUNDARY for c in text)
    return WORD_BOUNDARY.join(word for word in text.split() if word.strip("'"))


@dataclass(frozen=True)
class Units:
    """The output units of a model. Id 0 is the CTC blank, whose symbol is the empty string.

    Attributes:
      symbols: [size], `symbols[id]` is the text of a unit; `symbols[0]` is "".
    """

    symbols: tuple[str, ...]

    def __post_init__(self):
        if not self.symbols or self.symbols[BLANK_ID] != "":
            raise ValueError("unit 0 must be the CTC blank, written as the empty string")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError("every unit may stand only once")

    @classmethod
    def characters(cls) -> "Units":
        """Blank, space, apostrophe, a–z: what `normalize` leaves over."""
        return cls(("", WORD_BOUNDARY, "'", *"abcdefghijklmnopqrstuvwxyz"))

    @property
    def size(self) -> int:
        """Number of units, the blank included: the width of the model's last layer."""
        return len(self.symbols)

    def encode(self, text: str) -> list[int]:
        """Ids of a text. Raises ValueError naming the characters that are no units."""
        ids = {symbol: id for id, symbol in enumerate(self.symbols) if id != BLANK_ID}
        unknown = sorted(set(text) - ids.keys())
        if unknown:
            raise ValueError(f"no unit for {' '.join(map(repr, unknown))}: normalise the text first")
        return [ids[character] for character in text]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; blanks vanish, repeats stay."""
        return "".join(self.symbols[id] for id in ids)

    def save(self, path: Path | str) -> None:
        """One unit a line, in the order of the ids."""
        names = {"": _BLANK_LINE, WORD_BOUNDARY: _SPACE_LINE}
        lines = [names.get(symbol, symbol) for symbol in self.symbols]
        Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> "Units":
        """Reads what `save` wrote."""
        names = {_BLANK_LINE: "", _SPACE_LINE: WORD_BOUNDARY}
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        return cls(tuple(names.get(line, line) for line in lines))
