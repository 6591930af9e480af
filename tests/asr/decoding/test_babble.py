"""asr/decoding/babble.py with log-probs made for the purpose."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from asr.decoding.babble import SHORTFALL, TOKEN_LOG_PROB, is_babble, is_spelled
from asr.decoding.greedy import greedy_decode
from asr.tokenizer import BLANK_ID, Tokenizer

TOKENIZER = Tokenizer.characters()
STEP_SECONDS = 0.04
SURE = -0.1  # mean log-probability of the tokens of a decoder that is not in doubt


def judged(letters: int, probability: float, seconds: float, shortfall: float, token_log_prob=SURE) -> bool:
    """Of so many letters in so many seconds."""
    probabilities = np.full((round(seconds / STEP_SECONDS), TOKENIZER.size), 1e-4)
    probabilities[:, BLANK_ID] = 0.99
    places = np.arange(1, 2 * letters, 2)
    probabilities[places, BLANK_ID] = (1 - probability) / 2
    probabilities[places, TOKENIZER.encode("a")[0]] = probability
    log_probs = np.log(probabilities).astype("float32")
    by_ctc = greedy_decode(log_probs, TOKENIZER)
    assert len(by_ctc.units) == letters
    return is_babble(by_ctc, log_probs, STEP_SECONDS, token_log_prob, shortfall)


BABBLE = {"letters": 20, "probability": 0.7, "seconds": 10, "shortfall": 1.5}


def test_few_unsure_letters_and_another_text_are_babble():
    assert judged(**BABBLE)


@pytest.mark.parametrize(
    "changed",
    [
        {"letters": 100},
        {"probability": 0.99},
        {"seconds": 5},
        {"shortfall": 0.1},  # the decoder writes what CTC has
    ],
)
def test_speech_differs_from_babble_in_one_of_four(changed):
    assert not judged(**BABBLE | changed)


def test_a_text_that_neither_head_believes_is_babble_at_any_speed():
    many = {"letters": 100, "probability": 0.99, "seconds": 9}
    assert judged(**many, shortfall=SHORTFALL + 0.1, token_log_prob=TOKEN_LOG_PROB - 0.1)
    assert not judged(**many, shortfall=SHORTFALL + 0.1, token_log_prob=TOKEN_LOG_PROB + 0.1)
    assert not judged(**many, shortfall=SHORTFALL - 0.1, token_log_prob=TOKEN_LOG_PROB - 0.1)


@given(
    letters=st.integers(1, 60),
    probability=st.floats(0.4, 0.999),
    seconds=st.floats(5, 25),
    shortfall=st.floats(0, 9),
    longer=st.floats(0, 10),
    worse=st.floats(0, 3),
)
def test_more_empty_sound_and_more_doubt_make_no_speech(
    letters, probability, seconds, shortfall, longer, worse
):
    assume(judged(letters, probability, seconds, shortfall))
    assert judged(letters, probability, seconds + longer, shortfall + worse)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("F-I-N-D-L-E-Y", True),
        ("F I N D", True),
        ("A.M.S.J. seven hundred eighty six", True),
        ("I, a", False),
        ("A b c is what he said to me", False),
        ("1 2 3 4", False),
        ("", False),
    ],
)
def test_spelled_texts(text, spelled):
    assert is_spelled(text) == spelled
