"""training/benchmarks/hotwords.py: which words are taken, and what counts as found."""

import numpy as np

from asr.decoding.ngram import NgramLevel, NgramModel
from training.benchmarks.hotwords import count_words, rarest_words
from training.scoring.normalizers import normalizer


def model_of(probabilities: dict[str, float]) -> NgramModel:
    vocabulary = sorted(["</s>", "<s>", "<unk>", *probabilities])
    log_probs = np.log([probabilities.get(word, 0.01) for word in vocabulary])
    level = NgramLevel(np.zeros(len(vocabulary), int), np.arange(len(vocabulary)), log_probs, 0 * log_probs)
    return NgramModel.from_levels(vocabulary, [level])


def test_rarest_words_are_the_unknown_then_the_improbable():
    model = model_of({"spoke": 0.5, "quietly": 0.2, "mister": 0.1})
    texts = ["mister quillan spoke to mantelish", "quillan spoke quietly to ann"]
    assert rarest_words(texts, model, 4) == ["quillan", "mantelish", "mister", "quietly"]  # quillan twice


def test_found_and_elsewhere():
    said = ["ann saw quillan today", "quillan came", ""]
    utterances = ["and saw quillan to day", "killing came", "hm"]
    counts = count_words(said, utterances, ["quillan"])
    # of each utterance: found, said, errors elsewhere, words elsewhere
    assert counts.tolist() == [[1, 1, 3, 3], [0, 1, 0, 1], [0, 0, 1, 0]]


def test_found_under_a_normaliser():
    said, recognised = ["she wore grey to colchester"], ["she wore gray to colchester"]
    words = ["grey", "colchester"]
    assert count_words(said, recognised, words, normalizer("basic")).tolist() == [[1, 2, 0, 3]]
    assert count_words(said, recognised, words, normalizer("english")).tolist() == [[2, 2, 0, 3]]
