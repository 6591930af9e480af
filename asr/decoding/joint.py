"""Joint decoding: an attention decoder writes; CTC drafts, checks, and times what it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter

import numpy as np

from asr.decoding import Hypothesis, WrittenWord
from asr.decoding.alignment import forced_align
from asr.decoding.babble import is_babble, is_spelled
from asr.decoding.beam import DRAFT_BEAM, BeamDecoder
from asr.decoding.draft import DRAFT_TOKENS, Draft
from asr.decoding.written import alike, joined, places_of, replaced, spoken_words, with_capitals
from asr.tokenizer import WORD_BOUNDARY, Tokenizer
from asr.vocabulary import Vocabulary

# A text has at most so many tokens for each letter of CTC, and a few more: beyond, it repeats itself.
TOKENS_PER_LETTER, MORE_TOKENS = 0.6, 12
MAX_TOKENS = 224  # of one utterance, as in Whisper
# Nats for each letter by which CTC may find a text less probable than its own best path. A text beyond that
# has words without sound: that of CTC is taken.
REFUSAL = 2.5
NO_ROOM = 10.0  # that many where the sound has no room for the text
# A text whose tokens have a lower mean log-probability is searched for again with a beam of this width, from
# the first token on that is less probable than SURE.
UNSURE, WIDTH, SURE = -0.22, 4, -0.2
# The search takes no token that is so many nats less probable than the best in its place: sorting all of the
# vocabulary would cost a tenth of its time.
UNLIKELY = 10.0
CTC_WEIGHT = 0.05  # of the log-probability by CTC beside the decoder's, to compare texts
SAID = 0.8  # fraction of CTC's letters that a text of the beam search has before it may end
# Hot words are tried in place of words like them that CTC finds at most so many nats more probable; what each
# of them, and each of their letters, adds to the score of a text.
HOTWORD_CTC_NATS = 12.0
HOTWORD_NATS, HOTWORD_LETTER_NATS = 5.0, 1.0
# Symbols that are not spoken. Whisper's own decoding bars them, too.
UNSPOKEN = [*'"#()*+/:;<=>@[\\]^_`{|}~「」『』♩♪♫♬♭♮♯', "--", "---", "((", "))", "[[", "]]", "<<", ">>", "♪♪"]

# Tokens int32 [batch, tokens], past and memory → logits and past, see `asr.engine.Engine`.
Step = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
# Token ids of a text, and the decoder's log-probability of each and, unless it was cut off, of the end.
Scored = tuple[list[int], list[float]]


class JointDecoder:
    """Writes an utterance by an attention decoder and, where the model has one, a CTC head.

    The decoder's most probable token is taken each time. CTC proposes several tokens at once, of which those
    are kept that the decoder would have chosen itself (speculative decoding, Leviathan et al. 2023): the text
    is the same as without, in fewer steps. Where the decoder is unsure, a beam search finds further texts,
    and that of the highest score by both heads is taken (Watanabe et al. 2017). A text that CTC finds
    impossible is refused; if all are, that of CTC is taken. Each hot word is tried in place of words with
    similar letters, with a bonus to the score of a text that has it.

    Args:
      step: of the decoder, see `asr.engine.Engine`.
      vocabulary: of the decoder.
      tokenizer: of the CTC head.
      ctc: the search over the CTC head alone, with its language model and the hot words; None for a model
        without a CTC head.
      step_seconds: of the CTC head.
      hotwords: names and phrases to expect, as they are written.
    """

    def __init__(
        self,
        step: Step,
        vocabulary: Vocabulary,
        tokenizer: Tokenizer,
        ctc: BeamDecoder | None,
        step_seconds: float,
        hotwords: Sequence[str] = (),
    ):
        self.step, self.vocabulary, self.tokenizer, self.ctc = step, vocabulary, tokenizer, ctc
        self.step_seconds = step_seconds
        phrases = [hotwords] if isinstance(hotwords, str) else hotwords
        # What is spoken, and how it may be written: small letters may become a capital where one is due.
        self.hotwords = {
            tuple(tokenizer.normalize(text).split()): {text, text.capitalize() if text.islower() else text}
            for text in map(str.strip, phrases)
        }
        unspoken = {symbol.encode() for symbol in UNSPOKEN}
        barred = [id for id, token in enumerate(vocabulary.tokens) if token.strip() in unspoken]
        self._barred = [*barred, *vocabulary.prompt]

    def decode(self, log_probs: np.ndarray | None, memory: np.ndarray, n_best: int = 1) -> list[Hypothesis]:
        """Up to `n_best` different texts of an utterance, best first; at least one.

        Args:
          log_probs: of the CTC head, [steps, units]; None for a model without one.
          memory: that the decoder attends to, see `asr.engine.Encoding`.

        Returns:
          Hypotheses as they are written, whose score is the decoder's log-probability plus CTC_WEIGHT times
          that of CTC. Their units are what is spoken; there are none without a CTC head.
        """
        by_ctc = None if self.ctc is None else self.ctc.decode(log_probs, beam=DRAFT_BEAM)[0]
        if by_ctc is not None and not by_ctc.text:  # nothing is said
            return [by_ctc]
        draft = by_ctc.text if by_ctc else ""
        texts = [self.write(memory, draft)]
        ids, scores = texts[0]
        mean = np.mean(scores or [-np.inf])
        if by_ctc is not None and self._is_babble(texts[0], by_ctc, log_probs):
            return [Hypothesis((), (), 0.0, "")]
        if n_best > 1:
            texts += self.search(memory, draft, max(n_best, WIDTH))
        elif by_ctc is not None and mean < UNSURE:
            sure = next((i for i, score in enumerate(scores[: len(ids)]) if score < SURE), len(ids))
            texts += self.search(memory, draft, WIDTH, (ids[:sure], scores[:sure]))
        found = self._hypotheses(texts, by_ctc, log_probs)
        before = None
        while self.hotwords and found and found[0] is not before:  # one hot word more each time
            before = found[0]
            texts = self._with_hotwords(before, memory, log_probs)
            found = _best_first([*found, *self._hypotheses(texts, by_ctc, log_probs)])
        return found[:n_best] or [_with_capitals(by_ctc)]

    def write(self, memory: np.ndarray, draft: str = "") -> Scored:
        """The decoder's own text.

        Args:
          draft: what is said, in the letters of CTC; "" if unknown.
        """
        drafted = Draft(draft, self.vocabulary, self.tokenizer)
        past = _empty_past(memory)
        ids: list[int] = []
        scores: list[float] = []
        given = self.vocabulary.prompt
        while len(ids) < _max_tokens(draft):
            proposed = drafted.after(ids)[:DRAFT_TOKENS]
            logits, present = self._step([[*given, *proposed]], past, memory)
            logits = logits[0, len(given) - 1 :]
            chosen = logits.argmax(axis=1).tolist()
            kept = 0  # of the proposed tokens; then comes one of the decoder's own
            while kept < len(proposed) and chosen[kept] == proposed[kept]:
                kept += 1
            for id, row in zip(chosen, logits[: kept + 1], strict=False):
                scores.append(float(row[id] - _log_sum_exp(row)))
                if id == self.vocabulary.end:
                    return ids, scores
                ids.append(id)
            past = present[:, :, : past.shape[2] + len(given) + kept]
            given = ids[-1:]
        return ids, scores

    def score(self, memory: np.ndarray, text: str) -> Scored:
        """What the decoder thinks of a text."""
        prompt, ids = self.vocabulary.prompt, self.vocabulary.encode(" " + text)
        logits, _ = self._step([[*prompt, *ids]], _empty_past(memory), memory)
        rows = logits[0, len(prompt) - 1 :]
        scores = [
            float(row[id] - _log_sum_exp(row))
            for row, id in zip(rows, [*ids, self.vocabulary.end], strict=True)
        ]
        return ids, scores

    def search(self, memory: np.ndarray, draft: str, width: int, start: Scored = ([], [])) -> list[Scored]:
        """Up to `width` texts of a beam search.

        A text may end when it has SAID of the letters of the draft.

        Args:
          draft: what is said, in the letters of CTC; "" if unknown.
          start: with which all texts begin.
        """
        past, given = _empty_past(memory), [[*self.vocabulary.prompt, *start[0]]]
        beams = [start]
        ended: list[Scored] = []
        for _ in range(len(start[0]), _max_tokens(draft)):
            logits, present = self._step(given, past, memory)
            longer = []
            for place, (row, (ids, scores)) in enumerate(zip(logits[:, -1], beams, strict=True)):
                total = _log_sum_exp(row)
                if len(self.vocabulary.decode(ids)) < SAID * len(draft):
                    row[self.vocabulary.end] = -np.inf
                likely = np.flatnonzero(row > row.max() - UNLIKELY)
                for id in likely[np.argsort(row[likely])][-width - 1 :].tolist():
                    longer.append((place, [*ids, id], [*scores, float(row[id] - total)]))
            longer.sort(key=lambda beam: sum(beam[2]), reverse=True)
            going = []
            for place, ids, scores in longer[: 2 * width]:
                if ids[-1] == self.vocabulary.end:
                    ended.append((ids[:-1], scores))
                elif len(going) < width:
                    going.append((place, ids, scores))
            if len(ended) >= width or not going:
                break
            beams = [(ids, scores) for _, ids, scores in going]
            past, given = present[:, [place for place, _, _ in going]], [ids[-1:] for ids, _ in beams]
        return ended[:width] or beams

    def _is_babble(self, text: Scored, by_ctc: Hypothesis, log_probs: np.ndarray) -> bool:
        """Whether there are voices, but nothing that they say."""
        ids, scores = text
        if is_spelled(self.vocabulary.decode(ids)):
            return False
        _, said = self._spoken(self._words(ids, scores), by_ctc)
        shortfall = _shortfall(self._align(said, log_probs), by_ctc, log_probs)
        token_log_prob = np.mean(scores or [-np.inf])
        return is_babble(by_ctc, log_probs, self.step_seconds, token_log_prob, shortfall)

    def _step(self, tokens: list[list[int]], past: np.ndarray, memory: np.ndarray):
        logits, present = self.step(np.array(tokens, "int32"), past, memory)
        logits[..., self._barred] = -np.inf
        return logits, present

    def _words(self, ids: Sequence[int], scores: Sequence[float]) -> tuple[WrittenWord, ...]:
        """The words of some tokens."""
        words: list[tuple[bytes, float]] = []
        for id, score in zip(ids, scores, strict=False):  # the end is no word
            token = self.vocabulary.tokens[id]
            if words and not token.startswith(b" "):
                before, least = words.pop()
                token, score = before + token, min(score, least)
            words.append((token, score))
        texts = [(token.decode("utf-8", errors="replace").strip(), score) for token, score in words]
        return tuple(WrittenWord(text, 0, score) for text, score in texts if text)

    def _hypotheses(
        self, texts: Sequence[Scored], by_ctc: Hypothesis | None, log_probs: np.ndarray | None
    ) -> list[Hypothesis]:
        """The texts that are not refused, best first."""
        found = []
        for ids, scores in texts:
            words = self._words(ids, scores)
            hypothesis = Hypothesis((), (), sum(scores), joined(words), words)
            if by_ctc is not None:
                hypothesis = self._anchored(hypothesis, by_ctc, log_probs)
            if hypothesis is not None:
                found.append(hypothesis)
        return _best_first(found)

    def _anchored(
        self, hypothesis: Hypothesis, by_ctc: Hypothesis, log_probs: np.ndarray
    ) -> Hypothesis | None:
        """The text with the units and steps of CTC, scored with CTC and hot words, too; None if refused."""
        words, said = self._spoken(hypothesis.written, by_ctc)
        aligned = self._align(said, log_probs)
        if aligned is None or _shortfall(aligned, by_ctc, log_probs) > REFUSAL:
            return None
        score = hypothesis.score + CTC_WEIGHT * aligned.score
        for phrase in self.hotwords:
            bonus = HOTWORD_NATS + HOTWORD_LETTER_NATS * sum(map(len, phrase))
            score += bonus * len(places_of(phrase, said))
        return replace(aligned, score=score, text=joined(words), written=words)

    def _spoken(
        self, words: Sequence[WrittenWord], by_ctc: Hypothesis
    ) -> tuple[tuple[WrittenWord, ...], list[str]]:
        """Written words with the number of words that are spoken for each, and these."""
        spoken = spoken_words([word.text for word in words], by_ctc.text.split(), self.tokenizer)
        counted = tuple(word._replace(spoken=len(said)) for word, said in zip(words, spoken, strict=True))
        return counted, [word for part in spoken for word in part]

    def _with_hotwords(
        self, hypothesis: Hypothesis, memory: np.ndarray, log_probs: np.ndarray
    ) -> list[Scored]:
        """The text with a hot word in place of words like it, in each way."""
        said = self.tokenizer.decode(hypothesis.units).split()
        places = [(place, len(phrase)) for phrase in self.hotwords for place in places_of(phrase, said)]
        hot = {i for place, count in places for i in range(place, place + count)}
        least = self._align(said, log_probs).score - HOTWORD_CTC_NATS
        texts = []
        for phrase, forms in self.hotwords.items():
            for first, last in alike(phrase, said):
                changed = self._align([*said[:first], *phrase, *said[last:]], log_probs)
                if hot.isdisjoint(range(first, last)) and changed and changed.score > least:
                    words = [replaced(hypothesis.written, first, last, form, len(phrase)) for form in forms]
                    texts += [self.score(memory, joined(part)) for part in words]
        return texts

    def _align(self, words: Sequence[str], log_probs: np.ndarray) -> Hypothesis | None:
        """The steps of spoken words; None where there is no room for them."""
        try:
            return forced_align(log_probs, self.tokenizer.encode(WORD_BOUNDARY.join(words)))
        except ValueError:
            return None


def _with_capitals(by_ctc: Hypothesis) -> Hypothesis:
    """The hypothesis of CTC as a sentence."""
    text = with_capitals(by_ctc.text.split(), at_start=True)
    return replace(by_ctc, text=text, written=tuple(WrittenWord(word, 1, 0.0) for word in text.split()))


def _best_first(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    """Each text once."""
    found: dict[str, Hypothesis] = {}
    for hypothesis in sorted(hypotheses, key=attrgetter("score"), reverse=True):
        found.setdefault(hypothesis.text, hypothesis)
    return list(found.values())


def _shortfall(aligned: Hypothesis | None, by_ctc: Hypothesis, log_probs: np.ndarray) -> float:
    """By how many nats a letter CTC finds a text less probable than its own best path."""
    if aligned is None:
        return NO_ROOM
    own_path = log_probs.max(axis=1).sum(dtype=np.float64)
    return (own_path - aligned.score) / max(len(aligned.units), len(by_ctc.units))


def _empty_past(memory: np.ndarray) -> np.ndarray:
    parts, _, heads, _, size = memory.shape
    return np.zeros((parts, 1, 0, heads * size), memory.dtype)


def _max_tokens(draft: str) -> int:
    return min(MAX_TOKENS, round(TOKENS_PER_LETTER * len(draft)) + MORE_TOKENS) if draft else MAX_TOKENS


def _log_sum_exp(x: np.ndarray) -> float:
    largest = x.max()
    return largest + np.log(np.exp(x - largest).sum())
