"""The tokens in which an attention decoder writes: text with capitals and punctuation ↔ token ids."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path

from asr.files import write_whole

# GPT-2's pieces, within which bytes are joined. Python's \w without digits and "_" is a letter ...
_PIECES = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
# ... except numbers such as ² and Ⅷ; and its \s has four separators that are no space in Unicode.
_UNLIKE_GPT2 = re.compile(r"[\x1c-\x1f]|(?![a-zA-Z])[^\W\d_]")


def _pieces(text: str) -> Iterator[str]:
    """The pieces of a text, which are the same as with GPT-2's Unicode classes \\p{L} and \\p{N}."""

    def kind(match: re.Match) -> str:
        character = match[0]
        return character if character.isalpha() else "0" if character.isnumeric() else "."

    for match in _PIECES.finditer(_UNLIKE_GPT2.sub(kind, text)):
        yield text[match.start() : match.end()]


def _byte_characters() -> dict[int, str]:
    """How vocabulary files write each byte as a printable character (GPT-2, encoder.py)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


BYTE_CHARACTERS = _byte_characters()
CHARACTER_BYTES = {character: byte for byte, character in BYTE_CHARACTERS.items()}


def _bytes(token: str) -> bytes:
    return bytes(CHARACTER_BYTES[character] for character in token)


@dataclass(frozen=True)
class Vocabulary:
    """Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) and the marks around a text.

    Ids: the byte tokens, then the end of the text, then the marks before it.

    Attributes:
      tokens: byte strings; of two possible joins, that of the earlier token is made first.
      marks: names of the tokens before a text, in their order, such as "<|startoftranscript|>".
    """

    tokens: tuple[bytes, ...]
    marks: tuple[str, ...]

    def __post_init__(self):
        if missing := [byte for byte in range(256) if bytes([byte]) not in self._ids]:
            raise ValueError(f"{len(missing)} bytes have no token")
        if len(self._ids) != len(self.tokens):
            raise ValueError("a token occurs twice")
        if not self.marks or not all(isinstance(mark, str) for mark in self.marks):
            raise ValueError("the marks before a text must be names, at least one")

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> "Vocabulary":
        """At most `size` ids, learnt from texts as they are written; at least the bytes and two more."""
        from tokenizers import Tokenizer as Library
        from tokenizers import models, pre_tokenizers, trainers

        library, by_bytes = Library(models.BPE()), pre_tokenizers.ByteLevel
        library.pre_tokenizer = by_bytes(add_prefix_space=True)
        options = {"initial_alphabet": by_bytes.alphabet(), "show_progress": False}
        library.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=max(256, size - 2), **options))
        tokens = map(library.id_to_token, range(library.get_vocab_size()))
        return cls(tuple(map(_bytes, tokens)), ("<|startoftranscript|>",))

    @property
    def size(self) -> int:
        """Number of ids."""
        return len(self.tokens) + 1 + len(self.marks)

    @property
    def end(self) -> int:
        """Id of the end of a text."""
        return len(self.tokens)

    @property
    def prompt(self) -> list[int]:
        """Ids before a text."""
        return list(range(self.end + 1, self.size))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without the marks."""
        return [id for piece in _pieces(text) for id in self._joined(piece.encode())]

    def around(self, text: str) -> list[int]:
        """Ids of a whole text: the marks, its tokens, which begin with a space, and the end."""
        return [*self.prompt, *(self.encode(" " + text) if text else ()), self.end]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; marks and the end are left out, bytes that are no UTF-8 become "�"."""
        content = b"".join(self.tokens[id] for id in ids if id < self.end)
        return content.decode("utf-8", errors="replace")

    def save(self, path: Path) -> None:
        """Writes JSON. Raises OSError."""
        tokens = ["".join(BYTE_CHARACTERS[byte] for byte in token) for token in self.tokens]
        content = {"tokens": tokens, "marks": self.marks}
        write_whole(path, json.dumps(content, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Reads what `save` wrote. Raises OSError, or ValueError where it is something else."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(tuple(map(_bytes, content["tokens"])), tuple(content["marks"]))
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"not a vocabulary ({error})") from None

    def restricted(self, wanted: Sequence[int]) -> tuple["Vocabulary", list[int]]:
        """The vocabulary of some tokens, the single bytes, and all tokens that they are joined from.

        Every text stays writable; a text of kept tokens is encoded as before. Returns the vocabulary and the
        ids in this one of all its ids.
        """
        kept = {self._ids[bytes([byte])] for byte in range(256)}
        waiting = [id for id in wanted if id < self.end]
        while waiting:
            id = waiting.pop()
            if id not in kept:
                kept.add(id)
                waiting += self._joined(self.tokens[id], before=id)
        ids = sorted(kept)
        vocabulary = Vocabulary(tuple(self.tokens[id] for id in ids), self.marks)
        return vocabulary, [*ids, *range(self.end, self.size)]

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        return {token: id for id, token in enumerate(self.tokens)}

    @cached_property
    def _joined(self):
        ids = self._ids

        @lru_cache(maxsize=100_000)
        def joined(piece: bytes, before: int = len(self.tokens)) -> tuple[int, ...]:
            """Ids of a piece, whose bytes are joined to tokens of ids below `before`."""
            parts = [piece[i : i + 1] for i in range(len(piece))]
            while len(parts) > 1:
                pairs = [ids.get(a + b, before) for a, b in pairwise(parts)]
                best = min(pairs)
                if best >= before:
                    break
                at = pairs.index(best)
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            return tuple(ids[part] for part in parts)

        return joined
