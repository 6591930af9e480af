"""Look-up in the tables against a plain dictionary, the compact file, and ARPA files whole and broken."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.decoding.arpa import read_arpa, write_arpa
from asr.decoding.ngram import LanguageModelError, NgramModel, narrowed
from asr.files import open_file

ARPA = r"""
\data\
ngram 1=6
ngram 2=5
ngram 3=2

\1-grams:
-1.5	<unk>	-0.1
-99	<s>	-0.5
-0.9	</s>
-0.7	cat	-0.3
-0.5	the	-0.4
-1.1	theme	-0.2

\2-grams:
-0.2	<s> the	-0.25
-0.6	the cat	-0.15
-1.0	the theme
-0.3	cat </s>
-0.8	<unk> cat

\3-grams:
-0.1	<s> the cat
-0.05	the cat </s>

\end\
"""


@pytest.fixture
def arpa(tmp_path):
    path = tmp_path / "model.arpa"
    path.write_text(ARPA)
    return path


def entries():
    """n-gram → (log10 probability, back-off) of ARPA."""
    rows = [line.split("\t") for line in ARPA.splitlines() if "\t" in line]
    return {tuple(row[1].split()): (float(row[0]), float(row[2]) if len(row) > 2 else 0.0) for row in rows}


def plain_log10(history, word):
    """Back-off by its definition (Katz 1987)."""
    table = entries()
    for start in range(len(history) + 1):
        if (*history[start:], word) in table:
            passed = [table.get(history[s:], (0, 0.0))[1] for s in range(start)]
            return sum(passed) + table[(*history[start:], word)][0]
    raise AssertionError("every word has a unigram")


words = st.sampled_from(["<unk>", "<s>", "cat", "the", "theme"])


@given(history=st.lists(words, max_size=3), word=st.sampled_from(["</s>", "<unk>", "cat", "the", "theme"]))
def test_back_off_is_that_of_the_definition(tmp_path_factory, history, word):
    path = tmp_path_factory.getbasetemp() / "shared.arpa"
    path.write_text(ARPA)
    model = read_arpa(path)
    ids = [model.id(w) for w in history]
    expected = plain_log10(tuple(history[-2:]), word) * math.log(10)
    assert model.log_prob(ids, model.id(word)) == pytest.approx(expected, rel=1e-5)


def test_the_compact_file_holds_the_same_model(arpa, tmp_path):
    exact = read_arpa(arpa)
    exact.save(tmp_path / "ngram.bin")
    compact = NgramModel.load(tmp_path / "ngram.bin")
    assert compact.order == 3
    assert compact.counts == exact.counts == [6, 5, 2]
    # So few values that 8 bits name each.
    for history in ([], ["<s>"], ["<s>", "the"], ["the", "cat"], ["cat", "cat"]):
        for word in ("</s>", "cat", "the", "theme", "nowhere"):
            ids = [exact.id(w) for w in history]
            assert compact.log_prob(ids, compact.id(word)) == exact.log_prob(ids, exact.id(word))


def test_a_compact_file_of_single_words(tmp_path):
    exact = read_arpa_of_single_words(tmp_path / "unigrams.arpa")
    exact.save(tmp_path / "ngram.bin")
    compact = NgramModel.load(tmp_path / "ngram.bin")
    assert compact.counts == [4]
    assert compact.log_prob([compact.id("<s>")], compact.id("cat")) == pytest.approx(-0.3 * math.log(10))


def read_arpa_of_single_words(path):
    entries = {"<unk>": -1.0, "<s>": -99.0, "</s>": -0.4, "cat": -0.3}
    lines = [f"{log10}\t{word}" for word, log10 in entries.items()]
    path.write_text("\n".join(["\\data\\", "ngram 1=4", "\\1-grams:", *lines, "\\end\\"]))
    return read_arpa(path)


def test_quantisation_error_is_small(tmp_path):
    generator = np.random.default_rng(1)
    names = [f"w{i:03}" for i in range(300)]
    values = -generator.uniform(0.5, 6.0, (300, 30))
    lines = ["\\data\\", "ngram 1=303", "ngram 2=9000", "", "\\1-grams:"]
    lines += [f"-2.5\t{word}\t-0.5" for word in ("<unk>", "<s>", "</s>", *names)]
    lines += ["\\2-grams:"]
    lines += [f"{values[i, j]:.5f}\t{names[i]} {names[j]}" for i in range(300) for j in range(30)]
    (tmp_path / "big.arpa").write_text("\n".join([*lines, "\\end\\"]))
    exact = read_arpa(tmp_path / "big.arpa")
    exact.save(tmp_path / "ngram.bin")
    compact = NgramModel.load(tmp_path / "ngram.bin")
    errors = [
        abs(compact.log_prob([exact.id(names[i])], exact.id(names[j])) - values[i, j] * math.log(10))
        for i in range(0, 300, 7)
        for j in range(30)
    ]
    # The range of 5.5 in log10 is cut into 256 bins of 1/256 of the values each.
    assert max(errors) < 3 * 5.5 * math.log(10) / 256


def test_arpa_is_written_as_it_was_read(arpa, tmp_path):
    for name in ("again.arpa", "again.arpa.gz"):
        write_arpa(read_arpa(arpa), tmp_path / name)
        again, first = read_arpa(tmp_path / name), read_arpa(arpa)
        for field, array in first.tables._asdict().items():
            np.testing.assert_allclose(getattr(again.tables, field), array, rtol=1e-6, err_msg=field)


@pytest.mark.parametrize(
    "changes",
    [
        {"ngram ": "ngram \t", "=": " =   "},  # IRSTLM, Kaldi
        # A recipe of Hugging Face adds the line of <s> again, as </s>.
        {"1=6": "1=7", "-99\t<s>\t-0.5\n": "-99\t<s>\t-0.5\n-99\t</s>\t-0.5\n"},
        {"cat": "c\u00a0at"},
        {"cat": "\u3000"},
        {"\t": "  "},
        {"<unk>": "<UNK>", "cat": "CAT", "theme": "THEME", "the": "THE"},
        {"\n": "\r\n"},
        {"\n\\data": "\ufeff\\data"},
    ],
)
def test_files_of_other_tools_are_read(tmp_path, changes):
    text = ARPA
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    for name in ("a.arpa", "a.arpa.gz", "a.arpa.xz"):
        with open_file(tmp_path / name, "wt", newline="") as file:
            file.write(text)
        model = read_arpa(tmp_path / name)
        assert model.counts == [6, 5, 2]
        assert model.log_prob([], model.tables.end_id) == pytest.approx(-0.9 * math.log(10))
        assert model.log_prob([model.tables.begin_id], model.id("the")) == pytest.approx(-0.2 * math.log(10))


def test_words_in_upper_case_are_read_in_lower_case_or_counted(arpa, caplog):
    arpa.write_text(ARPA.replace("cat", "Cat"))
    assert read_arpa(arpa).knows("cat")
    assert "1 words in upper case are read in lower case" in caplog.text
    caplog.clear()
    arpa.write_text(ARPA.replace("theme", "THE"))
    assert read_arpa(arpa).knows("THE")
    assert "1 of 6 words have upper case" in caplog.text


def test_a_special_word_twice_is_refused_unless_it_is_a_copy(arpa):
    arpa.write_text(ARPA.replace("1=6", "1=7").replace("-0.9\t</s>\n", "-0.9\t</s>\n-0.8\t</s>\n"))
    with pytest.raises(LanguageModelError, match="'</s>' is among the 1-grams twice"):
        read_arpa(arpa)


letters = st.text(
    st.characters(exclude_characters=" \t\n\r", exclude_categories=["Cs", "Lu", "Lt"]), min_size=1
)


@given(data=st.data(), vocabulary=st.lists(letters.filter(lambda word: word == word.lower()), unique=True))
def test_any_model_is_read_as_it_was_written(tmp_path_factory, data, vocabulary):
    path, again = (tmp_path_factory.getbasetemp() / name for name in ("any.arpa", "again.arpa.gz"))
    words = ["<unk>", "<s>", "</s>", *(word for word in vocabulary if word not in ("<unk>", "<s>", "</s>"))]
    pairs = data.draw(st.lists(st.tuples(st.sampled_from(words), st.sampled_from(words)), unique=True))
    values = st.integers(-9_000, 0).map(lambda thousandths: thousandths / 1000)
    lines = ["\\data\\", f"ngram 1={len(words)}", f"ngram 2={len(pairs)}", "", "\\1-grams:"]
    lines += [f"{data.draw(values)}\t{word}\t{data.draw(values)}" for word in words]
    lines += ["", "\\2-grams:"]
    expected = {pair: data.draw(values) for pair in pairs}
    lines += [f"{value}\t{' '.join(pair)}" for pair, value in expected.items()]
    path.write_bytes("\n".join([*lines, "", "\\end\\", ""]).encode())
    write_arpa(read_arpa(path), again)
    model = read_arpa(again)
    assert sorted(map(model.word, range(model.vocabulary_size))) == sorted(words)
    for (first, second), value in expected.items():
        log_prob = model.log_prob([model.id(first)], model.id(second))
        assert log_prob == pytest.approx(value * math.log(10), rel=1e-5, abs=1e-9)


def test_a_damaged_back_off_is_refused(tmp_path):
    path = tmp_path / "damaged.arpa"
    path.write_text(ARPA.replace("\t-0.1\n", "\t99999999999\n", 1))
    with pytest.raises(LanguageModelError, match="the back-off weight is 99999999999"):
        read_arpa(path)


@given(data=st.data())
def test_a_damaged_arpa_file_is_read_or_refused_in_one_line(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.arpa"
    content = ARPA.encode()
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 30)))
    noise = st.binary(max_size=4) | st.sampled_from(b"99999999999 inf nan -99 <s> \\end\\".split())
    path.write_bytes(content[:start] + data.draw(noise) + content[end:])
    try:
        model = read_arpa(path)
    except LanguageModelError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
    else:
        for word in range(model.vocabulary_size):
            assert model.log_prob([model.tables.begin_id, word], word) <= 1e9


def test_a_model_without_unknown_word_is_given_one(arpa):
    text = ARPA.replace("ngram 1=6", "ngram 1=5").replace("-1.5\t<unk>\t-0.1\n", "")
    arpa.write_text(text.replace("ngram 2=5", "ngram 2=4").replace("-0.8\t<unk> cat\n", ""))
    model = read_arpa(arpa)
    assert model.log_prob([], model.id("nowhere")) == pytest.approx(-1.1 * math.log(10))


def test_words_that_begin_with_the_same_letters_are_a_range(arpa):
    model = read_arpa(arpa)
    first, last, word = 0, model.vocabulary_size, "theme"
    for letters, byte in enumerate(word.encode()):
        first, last = narrowed(model.tables, first, last, letters, byte)
        begun = [
            w for w in ("<unk>", "<s>", "</s>", "cat", "the", "theme") if w.startswith(word[: letters + 1])
        ]
        assert sorted(begun) == [model.word(id) for id in range(first, last)]
    assert np.diff(narrowed(model.tables, first, last, 5, ord("s"))) == 0
    assert model.knows("the")
    assert not model.knows("them")
    assert model.knows("them", finished=False)
    assert not model.knows("zebra", finished=False)


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("-0.25\n", "\n", 16, "no back-off weight"),
        ("-0.2\t<s> the\t-0.25\n", "", 21, "4 2-grams, but"),
        ("-0.3\tcat </s>\n", "-0.3\tcat </s>\n-0.3\tcat the\n", 21, "announced fewer"),
        ("-0.05\tthe cat </s>\n", "", 25, "1 3-grams, but"),
        ("-0.05\tthe cat </s>\n", "-0.05\tthe cat </s>\n-0.1\tthe cat cat\n", 25, "expected \\end\\"),
        ("-0.6\tthe cat", "0.6\tthe cat", 17, "probability above 1"),
        ("-0.6\tthe cat", "nan\tthe cat", 17, "probability above 1"),
        ("-0.6\tthe cat", "x\tthe cat", 17, "could not convert"),
        ("-0.6\tthe cat", "-0.6\tthe cât", 17, "not UTF-8"),
        ("-0.3\tcat </s>", "-0.3\tdog </s>", 19, "'dog' is not among the 1-grams"),
        ("-0.3\tcat </s>", "-0.3\tcat", 19, "expected a probability, 2 words, a back-off"),
        ("-0.3\tcat </s>", "-0.3\tthe cat", 19, "there twice"),
        ("-0.7\tcat", "-0.7\tthe", 12, "twice"),
        ("-0.1\t<s> the cat", "-0.1\tcat the cat", 23, "'cat the'"),
        ("ngram 2=5", "ngram 3=5", 4, "number of 2-grams"),
        ("\\end\\\n", "", 25, "ends before"),
    ],
)
def test_broken_arpa_files_are_refused_with_their_line(arpa, old, new, line, reason):
    assert ARPA.count(old) == 1
    arpa.write_text(ARPA.replace(old, new), encoding="latin-1")
    with pytest.raises(LanguageModelError) as error:
        read_arpa(arpa)
    assert f"{arpa}, line {line}: " in str(error.value)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_model_is_refused(tmp_path):
    for content in (b"", b"\x00\x01\x02" * 100, b"text\n" * 200):
        (tmp_path / "junk").write_bytes(content)
        for load in (NgramModel.load, read_arpa):
            with pytest.raises(LanguageModelError, match="junk"):
                load(tmp_path / "junk")
    for load in (NgramModel.load, read_arpa):
        with pytest.raises(LanguageModelError, match="No such file"):
            load(tmp_path / "missing")


def test_an_arpa_file_is_no_compact_model(arpa):
    with pytest.raises(LanguageModelError, match=r"training\.language_model convert"):
        NgramModel.load(arpa)


@given(data=st.data())
def test_a_damaged_compact_file_is_refused_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "model.arpa").write_text(ARPA)
    read_arpa(folder / "model.arpa").save(folder / "ngram.bin")
    content = bytearray((folder / "ngram.bin").read_bytes())
    if data.draw(st.booleans(), label="cut"):
        content = content[: data.draw(st.integers(0, len(content) - 1), label="length")]
    else:
        place = data.draw(st.integers(0, len(content) - 1), label="place")
        content[place] ^= data.draw(st.integers(1, 255), label="bits")
    (folder / "ngram.bin").write_bytes(content)
    try:
        model = NgramModel.load(folder / "ngram.bin")
    except LanguageModelError as error:
        assert "ngram.bin" in str(error)
    else:
        for word in range(model.vocabulary_size):
            model.log_prob([word, 0], word)


def test_compilation_needs_no_writable_folder():
    program = """
import numba.core.caching as caching
caching.CacheImpl._locator_classes = []
from asr.decoding.compilation import compiled
assert compiled(lambda x: x + 1)(1) == 2
"""
    subprocess.run([sys.executable, "-c", program], check=True)
