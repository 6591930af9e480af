"""asr/decoding/written.py"""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from asr.decoding.written import alike, counterpart, places_of, spoken_words
from asr.tokenizer import Tokenizer

TOKENIZER = Tokenizer.characters()


@given(words=st.lists(st.text("abc", min_size=1, max_size=4), max_size=6), data=st.data())
def test_words_alike(words, data):
    first = data.draw(st.integers(0, len(words)))
    phrase = words[first : first + 2]
    places = places_of(phrase, words)
    assert all(words[i : i + len(phrase)] == phrase for i in places) and first in places
    if phrase:
        assert {(i, i + len(phrase)) for i in places} <= set(alike(phrase, words))
        assert not list(alike(["x" * len("".join(phrase))], words))


letters = st.text("abc", min_size=1, max_size=3)


@given(ours=st.lists(letters, max_size=8), theirs=st.lists(letters, max_size=8), data=st.data())
def test_counterparts_are_ranges(ours, theirs, data):
    first = data.draw(st.integers(0, len(ours)))
    last = data.draw(st.integers(first, len(ours)))
    start, end = counterpart(ours, theirs, first, last)
    assert 0 <= start <= end <= len(theirs)
    if first < last:
        assert counterpart(ours, ours, first, last) == (first, last)


@given(written=st.lists(st.sampled_from(["The", "cat,", "1984", "$5", "–", "mat."]), max_size=8))
def test_all_that_is_said_belongs_to_a_word(written):
    says = {"1984": "nineteen eighty four", "$5": "five dollars"}
    by_ctc = [part for word in written for part in says.get(word, TOKENIZER.normalize(word)).split()]
    spoken = spoken_words(written, by_ctc, TOKENIZER)
    assert len(spoken) == len(written)
    for word, said in zip(written, spoken, strict=True):
        if word not in says:
            assert said == TOKENIZER.normalize(word).split()
    if len(set(by_ctc)) == len(by_ctc) and not any(
        one in says and other in says for one, other in pairwise(written)
    ):
        assert [part for said in spoken for part in said] == by_ctc
