"""asr/decoding/joint.py with a small random decoder, and with log-probs made for the purpose."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoders import TransformerDecoder
from asr.decoding.babble import TOKEN_LOG_PROB
from asr.decoding.beam import BeamDecoder
from asr.decoding.draft import Draft
from asr.decoding.joint import JointDecoder
from asr.decoding.written import with_capitals
from asr.tokenizer import BLANK_ID, Tokenizer
from asr.vocabulary import Vocabulary

TOKENIZER = Tokenizer.characters()
WORDS = [
    " the",
    " cat",
    " sat",
    " on",
    " Mat",
    " mat",
    " The",
    " Cat",
    "s",
    ".",
    ",",
    " 19",
    "84",
    " Quillan",
    " Killan",
]
SINGLE_BYTES = [bytes([byte]) for byte in range(256)]


def vocabulary() -> Vocabulary:
    """The words above and all that they are joined from."""
    tokens = dict.fromkeys(SINGLE_BYTES)
    for word in WORDS:
        tokens |= dict.fromkeys(word.encode()[:end] for end in range(2, len(word) + 1))
    return Vocabulary(tuple(tokens), ("<|start|>", "<|text|>"))


VOCABULARY = vocabulary()


def log_probs_of(text: str, probability: float = 0.97) -> np.ndarray:
    """CTC that is sure of a text: each letter one step, after a blank."""
    path = [id for letter in TOKENIZER.encode(text) for id in (BLANK_ID, letter)] + [BLANK_ID]
    rest = (1 - probability) / (TOKENIZER.size - 1)
    probabilities = np.full((len(path), TOKENIZER.size), rest)
    probabilities[np.arange(len(path)), path] = probability
    return np.log(probabilities).astype("float32")


class Writer:
    """A decoder that writes the tokens of the first text, or of a later one; `steps` counts its calls."""

    logit = 10.0  # of its tokens; 0 of all others

    def __init__(self, *texts: str):
        self.texts = [[*VOCABULARY.encode(" " + text), VOCABULARY.end] for text in texts]
        self.steps = 0

    def __call__(self, tokens, past, memory):
        self.steps += 1
        before, prompt = past.shape[2], len(VOCABULARY.prompt)
        logits = np.zeros((*tokens.shape, VOCABULARY.size), "float32")
        for place in range(tokens.shape[1]):
            written = before + place + 1 - prompt
            for rank, text in enumerate(self.texts):
                if 0 <= written < len(text):
                    of_token = logits[:, place, text[written]]
                    np.maximum(of_token, self.logit - 2.0 * rank, out=of_token)
        present = np.concatenate([past, np.zeros((*past.shape[:2], tokens.shape[1], 1), "float32")], axis=2)
        return logits, present


STEP_SECONDS = 0.04
MEMORY = np.zeros((2, 1, 1, 4, 1), "float32")


def joint(step, hotwords=()) -> JointDecoder:
    return JointDecoder(
        step, VOCABULARY, TOKENIZER, BeamDecoder(TOKENIZER, hotwords=hotwords), STEP_SECONDS, hotwords
    )


@pytest.fixture(scope="module")
def random_step():
    decoder = TransformerDecoder(VOCABULARY.size, width=8, layers=2, heads=2, name="decoder")
    decoder.build()
    random = np.random.default_rng(0)
    for variable in decoder.variables:
        variable.assign(random.normal(0, 1, variable.shape))

    def step(tokens, past, memory):
        parts, _, _, steps, _ = memory.shape
        memory = memory.transpose(0, 1, 3, 2, 4).reshape(parts, 1, steps, 8)
        lengths = np.full(len(tokens), steps, "int32")
        return tuple(np.array(part) for part in decoder.step(tokens, past, memory, lengths))

    return step


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("draft", ["the cat sat on the mat", "mat"])
def test_a_draft_changes_nothing(random_step, seed, draft, monkeypatch):
    monkeypatch.setattr("asr.decoding.joint.MAX_TOKENS", 24)
    memory = np.random.default_rng(seed).normal(0, 1, (4, 1, 2, 6, 4)).astype("float32")
    decoder = JointDecoder(random_step, VOCABULARY, TOKENIZER, None, STEP_SECONDS)
    ids, scores = decoder.write(memory, draft)
    expected, expected_scores = decoder.write(memory)
    assert ids == expected[: len(ids)]
    assert ids  # a random decoder writes until the limit
    np.testing.assert_allclose(scores, expected_scores[: len(ids)], atol=1e-3)


def test_a_beam_of_one_is_the_greedy_text(random_step, monkeypatch):
    monkeypatch.setattr("asr.decoding.joint.MAX_TOKENS", 24)
    memory = np.random.default_rng(9).normal(0, 1, (4, 1, 2, 6, 4)).astype("float32")
    decoder = JointDecoder(random_step, VOCABULARY, TOKENIZER, None, STEP_SECONDS)
    [(ids, scores)] = decoder.search(memory, "the cat", 1)
    expected, expected_scores = decoder.write(memory, "the cat")
    count = min(len(ids), len(expected))
    assert ids[:count] == expected[:count]
    np.testing.assert_allclose(scores[:count], expected_scores[:count], atol=1e-3)


def test_a_search_goes_on_from_a_start(random_step, monkeypatch):
    monkeypatch.setattr("asr.decoding.joint.MAX_TOKENS", 24)
    memory = np.random.default_rng(9).normal(0, 1, (4, 1, 2, 6, 4)).astype("float32")
    decoder = JointDecoder(random_step, VOCABULARY, TOKENIZER, None, STEP_SECONDS)
    [(whole, whole_scores)] = decoder.search(memory, "the cat", 1)
    [(ids, scores)] = decoder.search(memory, "the cat", 1, (whole[:5], whole_scores[:5]))
    assert len(whole) > 5 and ids == whole
    np.testing.assert_allclose(scores, whole_scores, atol=1e-3)


def test_the_end_counts():
    decoder = joint(Writer("The cat sat.", "The cat"))
    for ids, scores in [decoder.write(MEMORY, "the cat sat"), *decoder.search(MEMORY, "the cat", 2)]:
        assert len(scores) == len(ids) + 1


def test_a_right_draft_saves_steps():
    text = "The cat sat on the mat. The cat sat on the mat."
    drafted, alone = Writer(text), Writer(text)
    by_ctc = "the cat sat on the mat the cat sat on the mat"
    ids, _ = joint(drafted).write(MEMORY, by_ctc)
    assert VOCABULARY.decode(ids) == " " + text
    assert joint(alone).write(MEMORY)[0] == ids
    assert drafted.steps <= 5 < alone.steps == len(ids) + 1


def test_the_written_text_has_times_from_ctc():
    [best] = joint(Writer("The cat sat on the mat.")).decode(log_probs_of("the cat sat on the mat"), MEMORY)
    assert best.text == "The cat sat on the mat."
    assert [word.text for word in best.written] == ["The", "cat", "sat", "on", "the", "mat."]
    assert TOKENIZER.decode(best.units) == "the cat sat on the mat"
    assert [first for first, _ in best.steps] == list(range(1, 2 * len(best.units), 2))


@pytest.mark.parametrize("silence_steps", [0, 400])
def test_words_without_sound_are_refused(silence_steps):
    text = "The cat sat on the mat. The cat sat on the mat. The cat sat on the mat."
    by_ctc = log_probs_of("the cat")
    log_probs = np.concatenate([by_ctc, np.repeat(by_ctc[:1], silence_steps, axis=0)])
    [best] = joint(Writer(text)).decode(log_probs, MEMORY)
    assert best.text == "The cat"


def test_silence_writes_nothing():
    [best] = joint(Writer("The cat.")).decode(log_probs_of(""), MEMORY)
    assert best.text == ""


def test_babble_writes_nothing():
    unsure = Writer("The cat sat.")
    unsure.logit = 2.0
    decoder = joint(unsure)
    assert np.mean(decoder.write(MEMORY)[1]) < TOKEN_LOG_PROB
    unlike = log_probs_of("on the mat on the mat", 0.6)  # a text by CTC that the decoder does not have
    [best] = decoder.decode(unlike, MEMORY)
    assert best.text == ""
    [best] = decoder.decode(log_probs_of("the cat sat", 0.6), MEMORY)
    assert best.text


@pytest.mark.parametrize(
    ("probability", "silence_seconds", "text"), [(0.55, 10, ""), (0.55, 1, "The cat"), (0.99, 10, "The cat")]
)
def test_an_unsure_word_in_much_sound_without_letters_is_babble(probability, silence_seconds, text):
    by_ctc = log_probs_of("the cat", probability)
    silence = np.repeat(log_probs_of("the cat")[:1], round(silence_seconds / STEP_SECONDS), axis=0)
    decoder = joint(Writer("On the mat on the mat."))  # which CTC refuses
    [best] = decoder.decode(np.concatenate([by_ctc, silence]), MEMORY)
    assert best.text == text


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("probability", [0.99, 1.0])
def test_a_sure_word_whose_sound_has_no_room_for_the_text_is_no_babble(probability):
    by_ctc = log_probs_of("the cat", 0.99)
    by_ctc = np.where(by_ctc > -1, np.log(probability), by_ctc).astype("float32")
    silence = np.repeat(by_ctc[:1], 42, axis=0)
    decoder = joint(
        Writer("Quillan Quillan Quillan Quillan Quillan Quillan Quillan Quillan Quillan Quillan.")
    )
    [best] = decoder.decode(np.concatenate([by_ctc, silence]), MEMORY)
    assert best.text == "The cat"


def test_slow_spelling_is_no_babble():
    unsure = Writer("T h e cat.")
    unsure.logit = 2.0
    [best] = joint(unsure).decode(log_probs_of("on the mat on the mat", 0.6), MEMORY)
    assert best.text


def test_a_number_has_the_time_of_what_is_spoken():
    log_probs = log_probs_of("the cat nineteen eighty four sat")
    [best] = joint(Writer("The cat 1984 sat.")).decode(log_probs, MEMORY)
    assert best.text == "The cat 1984 sat."
    assert [word.spoken for word in best.written] == [1, 1, 3, 1]


def test_several_texts():
    best, other = joint(Writer("The cat sat.", "The Cat sat.")).decode(log_probs_of("the cat sat"), MEMORY, 2)
    assert best.text == "The cat sat."
    assert other.text == "The Cat sat."
    assert best.score > other.score


def test_hot_words_are_written_as_they_were_given():
    log_probs = log_probs_of("the quillan sat", 0.6)
    writer = Writer("The Killan, sat.", "The Quillan, sat.")
    assert joint(writer).decode(log_probs, MEMORY)[0].text == "The Killan, sat."
    for hotword in ("Quillan", " quillan"):  # with a capital if the decoder would
        best, other = joint(writer, [hotword]).decode(log_probs, MEMORY, 2)
        assert best.text == "The Quillan, sat."
        assert TOKENIZER.decode(best.units) == "the quillan sat"
        assert best.score > other.score


def test_two_hot_words_in_one_text():
    writer = Writer("The Killan, Killan sat.", "The Quillan, Killan sat.", "The Quillan, Quillan sat.")
    [best] = joint(writer, ["Quillan", "Mantelish"]).decode(log_probs_of("the quillan quillan sat"), MEMORY)
    assert best.text == "The Quillan, Quillan sat."


@pytest.mark.parametrize("said", ["The cat sat.", "The Killan sat."])
def test_hot_words_that_are_not_said_are_not_written(said):
    log_probs = log_probs_of(TOKENIZER.normalize(said))
    [best] = joint(Writer(said, "The Quillan sat."), ["Quillan"]).decode(log_probs, MEMORY)
    assert best.text == said


@settings(max_examples=50)
@given(
    words=st.lists(st.sampled_from(["the", "cat", "sat", "on", "mat", "i", "i'm"]), min_size=1, max_size=12),
    data=st.data(),
)
def test_a_draft_goes_on_where_the_text_is(words, data):
    draft = Draft(" ".join(words), VOCABULARY, TOKENIZER)
    count = data.draw(st.integers(0, len(words)))
    ids = VOCABULARY.encode(" " + with_capitals(words[:count], True)) if count else []
    proposed = VOCABULARY.decode(draft.after(ids))
    rest = with_capitals(words, True).split()[count : count + 8]
    assert proposed == (" " + " ".join(rest) if rest else ".")
