"""Hot words: what is refused, when credit is given and taken back, and what neighbours feel of it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.decoding.arpa import read_arpa
from asr.decoding.beam import BeamDecoder
from asr.decoding.hotwords import MAX_BOOST, MAX_WEIGHT, HotwordError, build_automaton, spelled
from asr.tokenizer import Tokenizer
from tests.asr.decoding.certainties import tokenizer_of
from tests.asr.decoding.reference_search import walk

UNITS = Tokenizer.characters()


def automaton_of(phrases, weight=1.0):
    return build_automaton(phrases, weight, lambda letters, finished: 0.0)


def scores_along(automaton, text):
    """The score of each prefix of the text, with an unfinished phrase's credit, and of the whole."""
    prefixes = [walk(automaton, text[:length]) for length in range(len(text) + 1)]
    scores = [rewards + float(automaton.credit[state]) for state, rewards in prefixes]
    return scores, walk(automaton, text + " ")[1]


def test_case_and_accents_are_folded():
    assert spelled(["  Zoë  Müller ", "zoe muller", "O’Brien"], UNITS) == ["zoe muller", "o'brien"]


def test_a_string_alone_is_one_phrase():
    assert spelled("Zoë Müller", UNITS) == ["zoe muller"]
    best = BeamDecoder(UNITS, hotwords="Quilan").decode(spelled_out("the kuilan said", others={4: "q"}))[0]
    assert best.text == "the quilan said"


@pytest.mark.parametrize(("phrase", "lost"), [("GPT4", "4"), ("Łódź", "ł"), ("AT&T", "&")])
def test_a_phrase_that_would_lose_letters_or_digits_is_refused(phrase, lost):
    with pytest.raises(HotwordError, match=f"{phrase}.*{lost}"):
        spelled([phrase], UNITS)


@pytest.mark.parametrize("phrase", ["", "  ", "42", "—", "'"])
def test_a_phrase_without_letters_is_refused(phrase):
    with pytest.raises(HotwordError, match="no letters"):
        spelled(["fine", phrase], UNITS)


def test_a_phrase_that_would_lose_letters_is_refused():
    with pytest.raises(HotwordError, match="'Quillan' has q u i l n"):
        spelled(["Quillan"], tokenizer_of("", " ", "a", "b"))
    with pytest.raises(HotwordError, match="'R2D2' has 2, which"):
        spelled(["R2D2"], UNITS)


def test_a_boost_that_does_nothing_or_anything_is_refused():
    for weight in (0.0, -1.0, MAX_WEIGHT + 0.1, math.nan):
        with pytest.raises(HotwordError, match="weight"):
            BeamDecoder(UNITS, hotwords=["ab"], hotword_weight=weight)


def test_credit_grows_with_the_letters_and_stays_after_the_word():
    assert scores_along(automaton_of(["cat"]), "cat sat") == ([0, 1, 2, 3, 3, 3, 3, 3], 3)


def test_the_boost_of_a_long_phrase_is_bounded():
    assert scores_along(automaton_of(["a" * 100], MAX_WEIGHT), "a" * 100)[1] == pytest.approx(MAX_BOOST)


def test_credit_is_taken_back_where_the_phrase_is_left():
    assert scores_along(automaton_of(["cat"]), "car cat") == ([0, 1, 2, 0, 0, 1, 2, 3], 3)
    assert scores_along(automaton_of(["cat"]), "cats ") == ([0, 1, 2, 3, 0, 0], 0)
    assert scores_along(automaton_of(["cat"]), "a scat") == ([0, 0, 0, 0, 0, 0, 0], 0)
    assert scores_along(automaton_of(["cat"]), "ca") == ([0, 1, 2], 0)


def test_phrases_of_several_words_that_overlap():
    automaton = automaton_of(["new york times", "york", "new"], 0.5)
    assert scores_along(automaton, "new york times")[1] == (3 + 4 + 5) / 2
    assert scores_along(automaton, "new york city")[1] == (3 + 4) / 2
    assert scores_along(automaton, "york")[1] == 4 / 2
    assert scores_along(automaton, "new new york")[1] == (3 + 3 + 4) / 2
    assert scores_along(automaton_of(["b c d", "c e"]), "b c e")[1] == 2


phrases = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=4, unique=True)


@given(phrases=phrases, text=st.text("ab ", max_size=15))
def test_a_whole_text_scores_its_hot_words(phrases, text):
    expected = sum(len(word) for word in text.split() if word in phrases)
    assert scores_along(automaton_of(phrases), text)[1] == expected


@given(phrases=st.lists(st.text("ab ", min_size=1, max_size=6), max_size=4), text=st.text("ab ", max_size=15))
def test_an_unfinished_text_never_scores_less_than_its_rewards(phrases, text):
    texts = spelled([phrase for phrase in phrases if phrase.strip()], UNITS)
    automaton = automaton_of(texts)
    for length in range(len(text) + 1):
        state, rewards = walk(automaton, text[:length])
        assert rewards + automaton.credit[state] >= rewards >= 0


def spelled_out(text, others=None, certainty=0.9):
    """Log-probs that spell a text; `others` maps steps to a letter nearly as probable as the text's."""
    matrix = np.full((len(text), UNITS.size), (1 - certainty) / (UNITS.size - 1))
    for step, character in enumerate(text):
        unit = UNITS.symbols.index(character if character != "-" else "")
        matrix[step, unit] = certainty
        if other := (others or {}).get(step):
            matrix[step, unit] = 0.52 * certainty
            matrix[step, UNITS.symbols.index(other)] = 0.48 * certainty
    return np.log(matrix).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "model.arpa"
    words = ["the", "quick", "killer", "asked", "him", "said", "and"]
    lines = [f"-1.0\t{word}" for word in ("<unk>", "<s>", "</s>", *words)]
    path.write_text("\n".join(["\\data\\", f"ngram 1={len(lines)}", "\\1-grams:", *lines, "\\end\\"]))
    return read_arpa(path)


def test_a_name_is_found_that_the_language_model_does_not_know(model):
    log_probs = spelled_out("the quilan said", others={4: "k"})
    plain = BeamDecoder(UNITS, model).decode(log_probs)[0].text
    boosted = BeamDecoder(UNITS, model, hotwords=["Quilan"]).decode(log_probs)[0].text
    assert (plain, boosted) == ("the quilan said", "the quilan said")
    log_probs = spelled_out("the kuilan said", others={4: "q"})
    assert BeamDecoder(UNITS, model).decode(log_probs)[0].text == "the kuilan said"
    assert BeamDecoder(UNITS, model, hotwords=["Quilan"]).decode(log_probs)[0].text == "the quilan said"


@pytest.mark.parametrize("weight", [0.5, MAX_WEIGHT])
def test_the_strongest_boost_leaves_the_neighbours_alone(model, weight):
    decoder = BeamDecoder(UNITS, model, hotwords=["quilan", "asks him", "a"], hotword_weight=weight)
    for text in ("the quick said", "asked him and", "kil-ler", "the and the"):
        assert decoder.decode(spelled_out(text, certainty=0.97))[0].text == text.replace("-", "")
