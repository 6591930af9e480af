"""asr/vocabulary.py: nothing is lost between text and tokens, and they are those of other BPE programs."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.vocabulary import BYTE_CHARACTERS, Vocabulary, _pieces

MARKS = ("<|startoftranscript|>", "<|notimestamps|>")
BYTES = tuple(bytes([byte]) for byte in range(256))
CORPUS = [
    "The quick brown fox, as they'd say, jumps over the lazy dog's 12 bones; that isn't 1,000 bananas!",
    "banana bandana and aaaa aaa aa x² is ½ of it. Ⅷ kings in ١٩٤٥, naïve café, Straße, 東京 нет",
    "I'll be there  at  10:45 — we've seen \"it\" before.\n\tSo they said they had said so themselves.",
] * 3
TEXTS = st.text() | st.text("ab nt'sd12²Ⅷ٣\u0301\x1c\n_.éß東").map(str) | st.sampled_from(CORPUS)


@pytest.fixture(scope="module")
def trained():
    """The tokenizers library's byte-level BPE, and the same vocabulary as ours."""
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    theirs.train_from_iterator(CORPUS, trainer)
    ids = theirs.get_vocab()
    byte_of = {character: byte for byte, character in BYTE_CHARACTERS.items()}
    tokens = tuple(bytes(byte_of[c] for c in token) for token in sorted(ids, key=ids.get))
    assert len(tokens) > 300
    return theirs, Vocabulary(tokens, MARKS)


def test_a_vocabulary_is_learnt(trained):
    _, expected = trained
    learnt = Vocabulary.train(CORPUS, 402)
    assert learnt.size == 402 and len(learnt.marks) == 1
    assert len(set(learnt.tokens) & set(expected.tokens)) > 380  # which began without a space
    assert len(learnt.encode(" banana")) <= 2
    assert Vocabulary.train([], 10).size == 258


@given(TEXTS)
def test_every_text_comes_back(text):
    vocabulary = Vocabulary((*BYTES, b"th", b"the", b" the", b"\xc3\xa9"), MARKS)
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert "".join(_pieces(text)) == text
    around = vocabulary.around(text)
    assert around[:2] == vocabulary.prompt == [vocabulary.end + 1, vocabulary.end + 2]
    assert around[-1] == vocabulary.end
    assert vocabulary.decode(around) == (" " + text if text else "")


@settings(max_examples=500)
@given(TEXTS)
def test_tokens_are_those_of_the_tokenizers_library(trained, text):
    theirs, ours = trained
    assert ours.encode(text) == theirs.encode(text).ids


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("x²y", ["x", "²", "y"]),
        (" Ⅷ5½ b", [" Ⅷ5½", " b"]),
        ("١٢٣ abc", ["١٢٣", " abc"]),
        ("e\u0301a", ["e", "\u0301", "a"]),
        ("東京3", ["東京", "3"]),
        ("a\x1cb", ["a", "\x1c", "b"]),
        ("they'll  do", ["they", "'ll", " ", " do"]),
        ("snake_case", ["snake", "_", "case"]),
    ],
)
def test_pieces_are_gpt2s(text, pieces):
    assert list(_pieces(text)) == pieces


@settings(max_examples=100)
@given(kept=st.lists(st.integers(0, 450), max_size=60), text=TEXTS)
def test_a_restricted_vocabulary_writes_every_text(trained, kept, text):
    _, whole = trained
    small, ids = whole.restricted(kept)
    assert small.size == len(ids) <= whole.size
    assert [whole.tokens[id] for id in ids[: small.end]] == list(small.tokens)
    assert ids[small.end :] == list(range(whole.end, whole.size))  # the end and the marks
    assert set(ids) >= {id for id in kept if id < whole.end}
    assert small.decode(small.encode(text)) == text


@settings(max_examples=100)
@given(text=TEXTS, others=st.lists(st.integers(0, 399), max_size=30))
def test_texts_of_kept_tokens_are_encoded_as_before(trained, text, others):
    _, whole = trained
    tokens = whole.encode(text)
    small, ids = whole.restricted([*tokens, *others])
    assert [ids[id] for id in small.encode(text)] == tokens


def test_bytes_that_are_no_text_and_marks():
    vocabulary = Vocabulary(BYTES, MARKS)
    assert vocabulary.decode([0x41, 0xFF, vocabulary.end, *vocabulary.prompt]) == "A�"


def test_saved_and_loaded(trained, tmp_path):
    _, vocabulary = trained
    vocabulary.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == vocabulary


SINGLE = [BYTE_CHARACTERS[byte] for byte in range(256)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting"),
        ("[" * 100_000, "not a vocabulary"),
        ("[]", "not a vocabulary"),
        ("{}", "not a vocabulary .'tokens'"),
        ({"tokens": SINGLE}, "not a vocabulary .'marks'"),
        ({"tokens": [*SINGLE, "一"], "marks": MARKS}, "not a vocabulary"),
        ({"tokens": [5], "marks": MARKS}, "not a vocabulary"),
        ({"tokens": SINGLE[:250], "marks": MARKS}, "6 bytes have no token"),
        ({"tokens": [*SINGLE, "a"], "marks": MARKS}, "a token occurs twice"),
        ({"tokens": SINGLE, "marks": []}, "the marks before a text must be names"),
        ({"tokens": SINGLE, "marks": [3]}, "the marks before a text must be names"),
    ],
)
def test_broken_files_are_refused(tmp_path, content, message):
    path = tmp_path / "vocabulary.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=message):
        Vocabulary.load(path)
