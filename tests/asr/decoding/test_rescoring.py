"""The recurrent language model in NumPy, and rescoring of N-best texts with it."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.bundle import Bundle
from asr.decoding.arpa import read_arpa
from asr.decoding.beam import BeamDecoder
from asr.decoding.ngram import LanguageModelError
from asr.decoding.recurrent_lm import RecurrentModel
from asr.decoding.rescoring import Rescorer
from tests.asr.decoding.certainties import tokenizer_of

VOCABULARY = ["</s>", "<unk>", "a", "ab", "b"]
UNITS = tokenizer_of("", " ", "a", "b", "c")

# In place of "abc" and "c", which the recurrent model does not know, it predicts <unk>.
ARPA = """\\data\\
ngram 1=8
ngram 2=3
\\1-grams:
-1.5 <unk> 0
-99 <s> -0.5
-0.6 </s> 0
-0.7 a -0.3
-0.8 ab -0.4
-1.1 abc -0.2
-0.8 b -0.2
-1.3 c 0
\\2-grams:
-0.2 <s> a
-0.6 a b
-0.9 b a
\\end\\
"""


def random_model(seed, vocabulary=VOCABULARY, width=6):
    normal = np.random.default_rng(seed).standard_normal
    shapes = {
        "embedding": (len(vocabulary), width),
        "kernel": (width, 4 * width),
        "recurrent_kernel": (width, 4 * width),
        "bias": (4 * width,),
        "word_bias": (len(vocabulary),),
    }
    return RecurrentModel(
        vocabulary, **{name: normal(shape).astype(np.float32) for name, shape in shapes.items()}
    )


def unigram_model(probabilities):
    """A model that predicts the same whatever came before, normalised."""
    width, words = 2, len(probabilities)
    zeros = np.zeros((width, 4 * width), np.float32)
    return RecurrentModel(
        list(probabilities),
        embedding=np.zeros((words, width), np.float32),
        kernel=zeros,
        recurrent_kernel=zeros,
        bias=zeros[0],
        word_bias=np.log(np.array(list(probabilities.values()), np.float32)),
    )


@pytest.fixture(scope="module")
def ngram(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "model.arpa"
    path.write_text(ARPA)
    return read_arpa(path)


sentences = st.lists(st.lists(st.integers(1, len(VOCABULARY) - 1), max_size=6), max_size=8)


@given(sentences, st.integers(0, 3))
@settings(deadline=None)
def test_a_sentence_scores_the_same_alone_and_among_others(sentences, seed):
    model = random_model(seed)
    together = model.log_probs(sentences)
    for sentence, log_probs in zip(sentences, together, strict=True):
        assert log_probs.shape == (len(sentence) + 1,)
        np.testing.assert_allclose(log_probs, model.log_probs([sentence])[0], atol=1e-5)


def test_long_sentences_take_no_longer_a_word():
    words = np.random.default_rng(0).integers(1, len(VOCABULARY), 20_000).tolist()
    [first, second] = random_model(0).log_probs([words, [*words[:-1], 2]])
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first[:-2], second[:-2])


def test_what_may_come_next_has_probability_one_in_all():
    model, begun = random_model(0), [2, 4, 4]
    ended = np.exp(model.log_probs([begun], normalized=True)[0][-1])
    words = range(1, len(VOCABULARY))
    next_words = [
        log_probs[-2] for log_probs in model.log_probs([[*begun, w] for w in words], normalized=True)
    ]
    assert ended + np.exp(next_words).sum() == pytest.approx(1, abs=1e-5)


def test_the_history_counts():
    model = random_model(1)
    after_a, after_b = model.log_probs([[2, 3], [4, 3]])
    assert abs(after_a[1] - after_b[1]) > 0.01


def test_a_saved_model_says_nearly_the_same(tmp_path):
    model = random_model(2, width=32)
    model.save(tmp_path / "recurrent.safetensors")
    loaded = RecurrentModel.load(tmp_path / "recurrent.safetensors")
    assert loaded.vocabulary == VOCABULARY
    [before], [after] = model.log_probs([[2, 3, 4, 1]]), loaded.log_probs([[2, 3, 4, 1]])
    np.testing.assert_allclose(before, after, atol=0.1)


def test_a_word_without_any_weight_is_saved_so(tmp_path):
    model = random_model(0)
    model.embedding[3] = 0
    model.embedding[4] = 1e-9
    model.save(tmp_path / "recurrent.safetensors")
    np.testing.assert_array_equal(RecurrentModel.load(tmp_path / "recurrent.safetensors").embedding[3:], 0)


def test_damaged_and_foreign_files_are_one_line(tmp_path):
    path = tmp_path / "recurrent.safetensors"
    with pytest.raises(LanguageModelError, match="No such file"):
        RecurrentModel.load(path)
    random_model(0).save(path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], whole.replace(b"</s>", b"xxxx"), b"ARPA" * 100):
        path.write_bytes(damaged)
        with pytest.raises(LanguageModelError, match="train it again") as caught:
            RecurrentModel.load(path)
        assert "\n" not in str(caught.value)


def test_non_finite_values_are_refused():
    tensors = {name: value for name, value in vars(random_model(0)).items() if isinstance(value, np.ndarray)}
    tensors["bias"][0] = np.nan
    with pytest.raises(ValueError, match="bias has non-finite values"):
        RecurrentModel(VOCABULARY, **tensors)


def test_words_that_only_the_ngram_model_knows_divide_the_unknown_one(ngram):
    recurrent = unigram_model({"</s>": 0.2, "<unk>": 0.25, "a": 0.3, "ab": 0.15, "b": 0.1})
    rescorer = Rescorer(recurrent, ngram, first_alpha=1, alpha=1, share=0.5)
    probabilities = {}
    for word in ("a", "ab", "abc", "b", "c", "<unk>"):
        [(by_recurrent, by_ngram)] = rescorer.log_probs([word])
        assert len(by_recurrent) == len(by_ngram) == 2
        probabilities[word] = np.exp(by_recurrent[0])
    assert probabilities["a"] == pytest.approx(0.3)
    assert sum(probabilities.values()) == pytest.approx(0.8)
    # 10 ** -1.1 against 10 ** -1.3 in the n-gram model
    assert probabilities["abc"] / probabilities["c"] == pytest.approx(10**0.2, rel=1e-4)


def test_the_ngram_part_is_what_the_search_counted(ngram):
    rescorer = Rescorer(random_model(0), ngram, first_alpha=0.7, alpha=0.7, share=0.0)
    assert rescorer.gains(["", "a b", "c c a", "zzz"]) == pytest.approx([0.0] * 4, abs=1e-9)
    [(_, by_ngram)] = rescorer.log_probs(["a b"])
    expected = [("<s>", "a"), ("a", "b"), ("b", "</s>")]
    assert by_ngram == pytest.approx([ngram.log_prob([ngram.id(h)], ngram.id(w)) for h, w in expected])


@pytest.mark.parametrize("options", [{"share": 1.5}, {"share": -0.1}, {"alpha": -1.0}, {"texts": 0}])
def test_numbers_out_of_range_are_refused(ngram, options):
    with pytest.raises(ValueError, match="share must lie in"):
        Rescorer(random_model(0), ngram, **{"first_alpha": 1, "alpha": 1, "share": 0.5} | options)


LOG_PROBS = np.log(np.array([[0.02, 0.02, 0.5, 0.44, 0.02]], np.float32))  # "a" or "b"


def test_rescoring_turns_a_close_race(ngram):
    recurrent = unigram_model({"</s>": 0.4, "<unk>": 0.02, "a": 0.04, "ab": 0.04, "b": 0.5})
    first = BeamDecoder(UNITS, ngram, alpha=0.5).decode(LOG_PROBS, n_best=3)
    rescorer = Rescorer(recurrent, ngram, first_alpha=0.5, alpha=0.5, share=0.9)
    second = BeamDecoder(UNITS, ngram, alpha=0.5, rescorer=rescorer).decode(LOG_PROBS, n_best=3)
    assert (first[0].text, second[0].text) == ("a", "b")
    assert [one.score for one in second] == sorted((one.score for one in second), reverse=True)
    before = {one.text: one.score for one in first}
    for one in second:
        assert one.score - before[one.text] == pytest.approx(rescorer.gains([one.text])[0])


def test_weight_zero_changes_nothing(ngram):
    rescorer = Rescorer(random_model(0), ngram, first_alpha=0.5, alpha=0.5, share=0.0)
    plain, rescored = (BeamDecoder(UNITS, ngram, alpha=0.5, rescorer=r) for r in (None, rescorer))
    generator = np.random.default_rng(0)
    for _ in range(20):
        log_probs = np.log(generator.dirichlet(np.full(UNITS.size, 0.3), 12).astype(np.float32) + 1e-8)
        assert [one.text for one in plain.decode(log_probs, 5)] == [
            one.text for one in rescored.decode(log_probs, 5)
        ]


def test_a_bundle_with_a_recurrent_model_needs_its_weights(ngram, tmp_path):
    (tmp_path / "lm").mkdir()
    ngram.save(tmp_path / "lm/ngram.bin")
    random_model(0).save(tmp_path / "lm/recurrent.safetensors")
    settings = {"alpha": 0.5, "beta": 1.0, "unknown_penalty": 1.0, "beam": 8}
    path = tmp_path / "lm/config.json"
    path.write_text(json.dumps(settings))
    bundle = Bundle(tmp_path, {"step_seconds": 0.04}, UNITS)
    with pytest.raises(LanguageModelError, match=r"config\.json: no decoder settings"):
        BeamDecoder.from_bundle(bundle)
    path.write_text(json.dumps(settings | {"rescoring": {"alpha": 0.6, "share": 0.4}}))
    rescorer = BeamDecoder.from_bundle(bundle).rescorer
    assert (rescorer.first_alpha, rescorer.alpha, rescorer.share) == (0.5, 0.6, 0.4)
    (tmp_path / "lm/recurrent.safetensors").unlink()
    assert BeamDecoder.from_bundle(bundle).rescorer is None
