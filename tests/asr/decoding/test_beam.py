"""Beam search: known answers, brute force, the plain search against the compiled one, and odd matrices."""

import itertools
import json
import math
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from asr.bundle import Bundle
from asr.decoding.arpa import read_arpa
from asr.decoding.beam import BeamDecoder
from asr.decoding.ngram import LanguageModelError
from asr.decoding.words import words_of
from tests.asr.decoding import reference_search
from tests.asr.decoding.certainties import tokenizer_of

UNITS = tokenizer_of("", " ", "a", "b", "c")
SUBWORDS = tokenizer_of("", " a", " b", "a", "b", "c")
EVERYTHING = {"beam": 100_000, "score_margin": 1e6, "least_unit_log_prob": -1e6}

ARPA = """\\data\\
ngram 1=7
ngram 2=4
ngram 3=1
\\1-grams:
-1.5 <unk> -0.1
-99 <s> -0.5
-0.9 </s>
-0.7 a -0.3
-0.5 ab -0.4
-1.1 abc -0.2
-0.8 b -0.2
\\2-grams:
-0.2 <s> ab -0.25
-0.6 ab b -0.15
-1.0 a </s> 0
-0.3 b a 0
\\3-grams:
-0.1 <s> ab b
\\end\\
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "model.arpa"
    path.write_text(ARPA)
    return read_arpa(path)


def log(probabilities):
    with np.errstate(divide="ignore"):
        return np.log(np.array(probabilities, dtype=np.float32))


def rows(text, certainty=0.9):
    """Log-probs that spell a text, "-" is the blank; the rest is spread over the other units."""
    matrix = np.full((len(text), UNITS.size), (1 - certainty) / (UNITS.size - 1))
    for step, character in enumerate(text):
        matrix[step, UNITS.symbols.index(character if character != "-" else "")] = certainty
    return log(matrix)


def collapsed(path):
    return tuple(unit for unit, _ in itertools.groupby(path) if unit != 0)


def every_text(log_probs):
    """ln P(units) for all that the steps can spell: the sum over all paths."""
    totals = defaultdict(lambda: -math.inf)
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        score = sum(float(log_probs[step, unit]) for step, unit in enumerate(path))
        totals[collapsed(path)] = np.logaddexp(totals[collapsed(path)], score)
    return totals


def score_of(text, model, alpha, beta, unknown_penalty):
    """The score of a whole text, word by word."""
    history, score = [model.tables.begin_id], 0.0
    for word in text.split():
        score += alpha * model.log_prob(history, model.id(word)) + beta
        score -= 0 if model.knows(word) else unknown_penalty * len(word)
        history.append(model.id(word))
    return score + alpha * model.log_prob(history, model.tables.end_id)


# Each path of one step of "a" spells it: P(a) = 0.4 · 0.4 + 2 · 0.4 · 0.6 = 0.64 against 0.36 for silence,
# although silence is the best path.
SUM_BEATS_BEST_PATH = log([[0.6, 0, 0.4, 0, 0], [0.6, 0, 0.4, 0, 0]])


def test_the_sum_over_paths_counts_and_not_the_best_path():
    hypotheses = BeamDecoder(UNITS).decode(SUM_BEATS_BEST_PATH, n_best=5)
    assert [hypothesis.text for hypothesis in hypotheses] == ["a", ""]
    assert [math.exp(hypothesis.score) for hypothesis in hypotheses] == pytest.approx([0.64, 0.36])


def test_a_repeated_letter_needs_a_blank():
    for spelling, text in (("aab", "ab"), ("a-ab", "aab"), ("a--", "a"), ("a b", "a b"), ("-", "")):
        assert BeamDecoder(UNITS).decode(rows(spelling))[0].text == text


def test_steps_and_words_of_a_hypothesis():
    log_probs = rows("-aa--b  -c-")
    hypothesis = BeamDecoder(UNITS).decode(log_probs)[0]
    assert hypothesis.text == "ab c"
    assert hypothesis.steps == ((1, 2), (5, 5), (6, 7), (9, 9))
    words = words_of(hypothesis, log_probs, UNITS, step_seconds=0.5)
    assert [(word.text, word.start, word.end) for word in words] == [("ab", 0.5, 3.0), ("c", 4.5, 5.0)]


matrices = arrays(np.float32, st.tuples(st.integers(0, 4), st.just(4)), elements=st.floats(-6, 0, width=32))


@settings(max_examples=25)
@given(logits=matrices)
def test_a_wide_beam_finds_what_brute_force_finds(logits):
    units = tokenizer_of("", " ", "a", "b")
    log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    best = defaultdict(lambda: -math.inf)
    for ids, score in every_text(log_probs).items():
        text = " ".join(units.decode(ids).split())
        best[text] = max(best[text], score)
    found = BeamDecoder(units, **EVERYTHING).decode(log_probs, n_best=len(best))
    assert {hypothesis.text: hypothesis.score for hypothesis in found} == pytest.approx(best, abs=1e-4)


@settings(max_examples=25)
@given(logits=matrices, alpha=st.floats(0, 2), beta=st.floats(-1, 2), penalty=st.floats(0, 2))
def test_with_a_language_model_too(model, logits, alpha, beta, penalty):
    units = tokenizer_of("", " ", "a", "b")
    log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    best = defaultdict(lambda: -math.inf)
    for ids, score in every_text(log_probs).items():
        text = " ".join(units.decode(ids).split())
        best[text] = max(best[text], score + score_of(text, model, alpha, beta, penalty))
    decoder = BeamDecoder(units, model, alpha=alpha, beta=beta, unknown_penalty=penalty, **EVERYTHING)
    found = decoder.decode(log_probs, n_best=len(best))
    assert {hypothesis.text: hypothesis.score for hypothesis in found} == pytest.approx(best, abs=1e-4)
    assert found == sorted(found, key=lambda hypothesis: -hypothesis.score)


@settings(max_examples=150)
@given(data=st.data())
def test_the_compiled_search_equals_the_reference(model, data):
    units = data.draw(st.sampled_from([UNITS, SUBWORDS]), label="units")
    shape = st.tuples(st.integers(0, 12), st.just(units.size))
    # Few values make ties, which both must break alike.
    values = st.one_of(st.floats(-9, 0, width=32), st.sampled_from([-math.inf, -30.0, -2.0, -1.0, 0.0]))
    log_probs = data.draw(arrays(np.float32, shape, elements=values), label="log_probs")
    log_probs[:, 0] = np.maximum(log_probs[:, 0], -20)
    decoder = BeamDecoder(
        units,
        data.draw(st.sampled_from([None, model, model.quantised()]), label="model"),
        data.draw(st.sampled_from([(), ("ab", "abc a", "c"), ("bb",)]), label="hot words"),
        beam=data.draw(st.integers(1, 12), label="beam"),
        alpha=data.draw(st.sampled_from([0.0, 0.7, 2.0]), label="alpha"),
        beta=data.draw(st.sampled_from([0.0, 1.5]), label="beta"),
        unknown_penalty=data.draw(st.sampled_from([0.0, 1.0]), label="penalty"),
        score_margin=data.draw(st.sampled_from([2.0, 12.0]), label="margin"),
        least_unit_log_prob=data.draw(st.sampled_from([-5.0, -40.0]), label="least"),
    )
    plain = reference_search.search(log_probs, decoder)
    compiled = list(decoder.results(log_probs))
    assert [score for score, _ in compiled] == pytest.approx([score for score, _ in plain], abs=1e-6)
    plain_scores = {ids: score for score, ids in plain}
    clear = [score for score, _ in plain]
    for rank, (score, ids) in enumerate(compiled):
        # Equal but for rounding, two texts may stand either way round.
        tied = sum(abs(score - other) < 1e-6 for other in clear) > 1
        assert ids == plain[rank][1] or tied
        assert ids in plain_scores or tied


def test_both_searches_agree_when_the_tree_overflows(model):
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(4_000, UNITS.size)) * 2
    log_probs = (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)
    decoder = BeamDecoder(UNITS, model, ["abc"], beam=4)
    plain = reference_search.search(log_probs, decoder)
    compiled = list(decoder.results(log_probs))
    assert compiled[0][1] == plain[0][1]
    assert compiled[0][0] == pytest.approx(plain[0][0], rel=1e-9)


def test_a_draft_is_what_a_decoder_of_that_beam_finds(model):
    generator = np.random.default_rng(5)
    logits = generator.normal(size=(200, UNITS.size))
    log_probs = (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)
    wide, narrow = BeamDecoder(UNITS, model, beam=200), BeamDecoder(UNITS, model, beam=2)
    assert wide.decode(log_probs, beam=2) == narrow.decode(log_probs)
    assert wide.decode(log_probs)[0].score > narrow.decode(log_probs)[0].score


def test_the_language_model_decides_between_what_sounds_alike(model):
    between = log([[0.1, 0, 0.9, 0, 0], [0.02, 0, 0, 0.48, 0.5]])
    assert BeamDecoder(UNITS).decode(between)[0].text == "ac"
    assert BeamDecoder(UNITS, model, alpha=0.5).decode(between)[0].text == "ab"


def test_unknown_words_cost_but_are_possible(model):
    for text in ("cab", "ab cab b", "bb"):
        spelling = text.replace("bb", "b-b")
        assert BeamDecoder(UNITS, model).decode(rows(spelling, certainty=0.99))[0].text == text


def test_known_words_are_not_joined_where_the_space_is_in_doubt(model):
    # The space is a little less probable than the blank.
    doubtful = rows("ab-b", certainty=0.98)
    doubtful[2, :2] = log([0.55, 0.43])
    assert BeamDecoder(UNITS).decode(doubtful)[0].text == "abb"
    assert BeamDecoder(UNITS, model).decode(doubtful)[0].text == "ab b"


def test_subwords_with_their_space_in_front(model):
    log_probs = np.full((3, SUBWORDS.size), math.log(0.02), dtype=np.float32)
    for step, unit in enumerate((" a", "b", " b")):
        log_probs[step, SUBWORDS.symbols.index(unit)] = math.log(0.9)
    hypothesis = BeamDecoder(SUBWORDS, model).decode(log_probs)[0]
    assert hypothesis.text == "ab b"
    assert [word.text for word in words_of(hypothesis, log_probs, SUBWORDS, 0.04)] == ["ab", "b"]


@pytest.mark.parametrize("with_model", [False, True])
def test_silence_and_hardly_anything(model, with_model):
    decoder = BeamDecoder(UNITS, model if with_model else None, hotwords=["ab"])
    assert decoder.decode(np.zeros((0, UNITS.size), np.float32))[0].text == ""
    assert decoder.decode(rows("-" * 500, certainty=1.0))[0].text == ""
    assert decoder.decode(rows("a", certainty=0.99))[0].text == "a"
    assert decoder.decode(rows(" ", certainty=0.99))[0].text == ""


def test_broken_log_probs_are_refused():
    decoder = BeamDecoder(UNITS)
    broken = rows("ab")
    broken[1, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        decoder.decode(broken)
    for value in (np.inf, -np.inf):
        broken = rows("ab")
        broken[1] = value
        with pytest.raises(ValueError, match="infinite"):
            decoder.decode(broken)
    with pytest.raises(ValueError, match="29 units, but the model has 5"):
        decoder.decode(np.zeros((3, 29), np.float32))
    with pytest.raises(ValueError, match=r"\[steps, units\]"):
        decoder.decode(np.zeros(5, np.float32))


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        BeamDecoder(UNITS, beam=0)
    with pytest.raises(ValueError, match="not below"):
        BeamDecoder(UNITS, alpha=-1.0)
    with pytest.raises(ValueError, match="space in front"):
        BeamDecoder(tokenizer_of("", "a ", "b"))


def test_an_hour_needs_little_memory():
    # In a process of its own, whose peak no other test has raised.
    program = """
import resource
import numpy as np
from asr.decoding.beam import BeamDecoder
from tests.asr.decoding.certainties import tokenizer_of

steps = 90_000  # of 40 ms
log_probs = np.tile(np.log(np.float32([0.996, 0.001, 0.001, 0.001, 0.001])), (steps, 1))
log_probs[::4] = np.log(np.float32([0.1, 0.15, 0.3, 0.25, 0.2]))
decoder = BeamDecoder(tokenizer_of("", " ", "a", "b", "c"), beam=8)
next(decoder.results(log_probs[:10]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
score, ids = next(decoder.results(log_probs))
print(len(ids), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    printed = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    units, kilobytes = map(int, printed.split())
    assert units > 20_000
    # All that were ever in the beam would be some 700,000 nodes of 80 bytes.
    assert kilobytes < 25_000


def test_a_bundle_brings_its_language_model_and_settings(model, tmp_path):
    bundle = Bundle(tmp_path, {"step_seconds": 0.04}, UNITS)
    assert BeamDecoder.from_bundle(bundle).language_model is None
    (tmp_path / "lm").mkdir()
    model.save(tmp_path / "lm" / "ngram.bin")
    settings = {"alpha": 0.7, "beta": 0.3, "unknown_penalty": 0.9, "beam": 17}
    (tmp_path / "lm" / "config.json").write_text(json.dumps({**settings, "wer": {}}))
    decoder = BeamDecoder.from_bundle(bundle, hotwords=["cab"])
    assert decoder.language_model.counts == model.counts
    assert (decoder.alpha, decoder.beta, decoder.unknown_penalty, decoder.beam) == (0.7, 0.3, 0.9, 17)
    for broken in ("{", "[]", json.dumps({"alpha": 1})):
        (tmp_path / "lm" / "config.json").write_text(broken)
        with pytest.raises(LanguageModelError, match=r"config\.json: .*tune_decoder"):
            BeamDecoder.from_bundle(bundle)
