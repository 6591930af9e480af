"""The recurrent language model in NumPy: probabilities, and its file."""

import numpy as np
import pytest

from asr.decoding.ngram import LanguageModelError
from training.recurrent_lm import RecurrentModel

VOCABULARY = ["</s>", "<unk>", "a", "ab", "b"]


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


def test_long_sentences_are_as_exact_as_short_ones():
    words = np.random.default_rng(0).integers(1, len(VOCABULARY), 5_000).tolist()
    model = random_model(0)
    long = model.log_probs(words)
    assert long.shape == (5_001,)
    for length in (1, 255, 256, 257, 4_999):
        np.testing.assert_allclose(model.log_probs(words[:length])[:-1], long[:length], atol=1e-5)


def test_what_may_come_next_has_probability_one_in_all():
    model, begun = random_model(0), [2, 4, 4]
    ended = np.exp(model.log_probs(begun)[-1])
    next_words = [model.log_probs([*begun, word])[-2] for word in range(1, len(VOCABULARY))]
    assert ended + np.exp(next_words).sum() == pytest.approx(1, abs=1e-5)


def test_the_history_counts():
    model = random_model(1)
    after_a, after_b = model.log_probs([2, 3]), model.log_probs([4, 3])
    assert abs(after_a[1] - after_b[1]) > 0.01


def test_a_saved_model_says_nearly_the_same(tmp_path):
    model = random_model(2, width=32)
    model.save(tmp_path / "recurrent.safetensors")
    loaded = RecurrentModel.load(tmp_path / "recurrent.safetensors")
    assert loaded.vocabulary == VOCABULARY
    np.testing.assert_allclose(model.log_probs([2, 3, 4, 1]), loaded.log_probs([2, 3, 4, 1]), atol=0.1)


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
