"""The words of CTC as tokens that an attention decoder may choose next."""

from collections.abc import Sequence

from asr.decoding.written import with_capitals
from asr.tokenizer import Tokenizer
from asr.transcript import SENTENCE_ENDS
from asr.vocabulary import Vocabulary

# Tokens of a draft that one step of the decoder checks: with more, the rejected ones cost more than is saved.
DRAFT_TOKENS = 8


class Draft:
    """The text of CTC as the tokens that the decoder may choose next."""

    def __init__(self, text: str, vocabulary: Vocabulary, tokenizer: Tokenizer):
        self.words, self.vocabulary, self.tokenizer = text.split(), vocabulary, tokenizer
        self._more = 0  # words that CTC has more than the decoder so far

    def after(self, ids: Sequence[int]) -> list[int]:
        """Tokens to propose after these."""
        if not self.words:
            return []
        text = self.vocabulary.decode(ids).strip()
        at_end = text.endswith(SENTENCE_ENDS)
        rest = self.words[self._place(self.tokenizer.normalize(text).split()) :][:DRAFT_TOKENS]
        if not rest:
            return [*([] if at_end else self.vocabulary.encode(".")), self.vocabulary.end]
        return self.vocabulary.encode(" " + with_capitals(rest, at_end or not text))

    def _place(self, spoken: Sequence[str]) -> int:
        """How many words of CTC are said when these are written: up to the same word, if it is near."""
        count = len(spoken) + self._more
        for distance in (0, 1, -1, 2, -2, 3, -3):
            place = count + distance
            if spoken and 0 < place <= len(self.words) and self.words[place - 1] == spoken[-1]:
                self._more += distance
                return place
        return max(0, count)
