"""asr/tokenizer.py: normalisation in any alphabet, characters and subwords, and what is lost is named."""

import dataclasses
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.tokenizer import BLANK_ID, ENGLISH_ALPHABET, Tokenizer, letters_of, lost_characters, normalize

RUSSIAN = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
ENGLISH_TEXTS = ["the cat sat on the mat", "that hat is the cat's", "a cat and a hat"]
CHARACTERS = Tokenizer.characters()
CYRILLIC = Tokenizer.characters("ru", RUSSIAN)
SUBWORDS = Tokenizer.train_bpe(ENGLISH_TEXTS * 5, "en", ENGLISH_ALPHABET, 60)
TOKENIZERS = [CHARACTERS, CYRILLIC, SUBWORDS]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hold on, I'm coming!", "hold on i'm coming"),
        ("Don’t 'quote' the dogs' — ' — bowl", "don't 'quote' the dogs' bowl"),
        ("  Zoë\tMüller\n", "zoe muller"),
        ("Straße ﬁne", "strasse fine"),
        ("42 — ½ !", ""),
        ("", ""),
    ],
)
def test_english(text, expected):
    assert normalize(text) == expected


def test_letters_with_marks_stay_where_the_alphabet_has_them():
    assert CYRILLIC.normalize("Ёжик — мой!") == "ёжик мой"
    assert CYRILLIC.normalize(unicodedata.normalize("NFD", "Ёжик мой")) == "ёжик мой"
    assert Tokenizer.characters("ru", RUSSIAN.replace("ё", "")).normalize("ёж") == "еж"


@given(st.text())
def test_english_is_what_it_was_before_there_were_other_alphabets(text):
    before = unicodedata.normalize("NFKD", text.casefold().replace("’", "'"))
    before = "".join(c for c in before if not unicodedata.combining(c))
    before = "".join(c if "a" <= c <= "z" or c == "'" else " " for c in before)
    assert normalize(text) == " ".join(word for word in before.split() if word.strip("'"))


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("hold on, i'm “coming” – now…", ""),
        ("Zoë’s café", ""),
        ("fish & chips for £5 @ the łódź", "&£5@ł"),
        ("привет", "привет"),
        ("½", "12"),
        ("日本", "日本"),
    ],
)
def test_what_is_spoken_and_not_written_is_named(text, lost):
    assert lost_characters(text) == lost


@given(st.text(alphabet=st.characters(categories=["Ll", "Lu", "Zs", "Po"])))
def test_a_text_loses_nothing_in_the_alphabet_of_its_letters(text):
    tokenizer = Tokenizer.characters("xx", letters_of([text]))
    assert not set(tokenizer.lost(text)) - set("&@%#")


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@given(text=st.text(alphabet=ENGLISH_ALPHABET + RUSSIAN + "é .,-"))
def test_encoded_and_decoded_a_normalised_text_is_itself(tokenizer, text):
    normal = tokenizer.normalize(text)
    ids = tokenizer.encode(normal)
    assert tokenizer.decode(ids) == tokenizer.normalize(normal) == normal
    assert all(BLANK_ID < id < tokenizer.size for id in ids)


def test_subwords_are_shorter_than_letters_and_bring_their_space():
    text = "the cat's hat"
    assert len(SUBWORDS.encode(text)) < len(text) / 2
    assert [SUBWORDS.symbols[id] for id in SUBWORDS.encode("the cat")] == [" the", " cat"]


def test_a_character_without_a_unit_is_named():
    for tokenizer in TOKENIZERS:
        with pytest.raises(ValueError, match="no unit for '!' 'Z': normalise"):
            tokenizer.encode("Z!")


def test_subwords_without_their_library_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    subwords = dataclasses.replace(SUBWORDS)  # which has not loaded the library yet
    assert subwords.decode(SUBWORDS.encode("the cat")) == "the cat"
    with pytest.raises(ImportError, match="pip install tokenizers") as error:
        subwords.encode("the cat")
    assert "\n" not in str(error.value)


def test_too_few_subwords_for_the_alphabet():
    with pytest.raises(ValueError, match=r"20 units are too few: .* are 29"):
        Tokenizer.train_bpe(ENGLISH_TEXTS, "en", ENGLISH_ALPHABET, 20)


@pytest.mark.parametrize("symbols", [(), ("a", "b"), ("", "a", "a"), ("", "a")])
def test_units_that_make_no_tokenizer(symbols):
    with pytest.raises(ValueError, match=r"unit"):
        Tokenizer("en", "ab", symbols)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_saved_and_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again == tokenizer
    text = tokenizer.normalize("the cats — ёжики")
    assert again.encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"language": "en", "alphabet": "a", "symbols": 3}'])
def test_a_file_that_is_no_tokenizer(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ValueError):
        Tokenizer.load(path)


def test_units_of_format_1(tmp_path):
    path = tmp_path / "units.txt"
    path.write_text("<blank>\n<space>\n'\n" + "\n".join("abcdefghijklmnopqrstuvwxyz") + "\n")
    assert Tokenizer.load_units_txt(path, "en") == CHARACTERS
