"""The normaliser "english" gives what whisper-normalizer gives, and no text stops it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisper_normalizer.english import EnglishTextNormalizer

from training.scoring.normalizers import normalizer

ORIGINAL, ENGLISH = EnglishTextNormalizer(), normalizer("english")
PIECES = ["(", ")", "[", "]", "<", ">", " ", "   ", "\n", "'", "'d", "been", "a", "one", "2", "$", "st", "."]


@given(st.one_of(st.lists(st.sampled_from(PIECES), max_size=20).map("".join), st.text(max_size=40)))
def test_it_is_the_original(text):
    assert ENGLISH(text) == " ".join(ORIGINAL(text).split())


@pytest.mark.parametrize("piece", ["[", "(", "<", "\n", "([)]"])
def test_a_long_text_takes_no_minutes(piece):
    began = time.monotonic()
    ENGLISH(piece * 50_000)
    ENGLISH("(" * 50_000 + "[)]")
    assert time.monotonic() - began < 5


def test_an_endless_number_is_one_line():
    with pytest.raises(ValueError, match=r"^the normaliser english reads no number of thousands of digits"):
        ENGLISH("1" * 5_000)
