"""Estimation against KenLM's values and the laws of probability, and the command around it."""

import gzip
import lzma
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding.arpa import read_arpa
from asr.decoding.ngram import NgramModel
from training import ngram_estimation
from training.commands import main
from training.language_model import measure, read_sentences
from training.ngram_estimation import estimate

ROOT = Path(__file__).parents[2]
TEXT = [
    "the cat sat on the mat",
    "the cat sat on the hat",
    "the dog sat on the log",
    "a dog and a cat sat",
    "the mat and the hat",
    "a cat on a log",
    "the dog ran",
    "the cat ran and the dog ran",
    "the cat and the dog sat on the mat",
    "the dog ran home",
]

# log10 probabilities and back-offs that KenLM 0.3.0 gives: lmplz -o 3 --prune 0 0 1
LMPLZ = {
    "<unk>": (-1.2990332, 0.0),
    "<s>": (0.0, -0.31992185),
    "</s>": (-0.7961303, 0.0),
    "the": (-1.1997391, -0.09040242),
    "mat": (-1.1189758, -0.24598242),
    "log": (-1.2465546, -0.04886603),
    "<s> the": (-0.27554134, -0.53223705),
    "sat on": (-0.9376579, -0.7731304),
    "mat </s>": (-0.5128974, 0.0),
    "the dog": (-1.1388545, -0.33973765),
    "dog and": (-0.7027093, 0.0),
    "<s> the cat": (-0.3515591, None),
    "sat on the": (-0.058542263, None),
    "the mat </s>": (-0.40174273, None),
    "and the dog": (-0.7156831, None),
}
LMPLZ_COUNTS = [15, 31, 13]


def arpa_entries(path):
    """log10 probability and back-off of each n-gram of an ARPA file."""
    entries = {}
    for line in path.read_text().splitlines():
        if len(fields := line.split("\t")) > 1:
            entries[fields[1]] = (float(fields[0]), float(fields[2]) if len(fields) > 2 else None)
    return entries


def test_estimates_are_those_of_lmplz(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXT))
    call = ["ngram", str(text), "--order", "3", "--prune", "0", "0", "1", "--arpa", "--output", str(tmp_path)]
    assert main(["language-model", *call]) == 0
    entries = arpa_entries(tmp_path / "ngram.arpa")
    assert len(entries) == sum(LMPLZ_COUNTS)
    for ngram, (log_prob, backoff) in LMPLZ.items():
        assert entries[ngram][0] == pytest.approx(log_prob, abs=1e-5), ngram
        assert entries[ngram][1] == pytest.approx(backoff, abs=1e-5), ngram
    assert NgramModel.load(tmp_path / "ngram.bin").counts == LMPLZ_COUNTS


def test_merging_many_sorted_runs_changes_nothing(tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    once = estimate([TEXT], whole, order=4).model
    monkeypatch.setattr(ngram_estimation, "BLOCK", 7)
    merged = estimate([TEXT[:2], [], TEXT[2:]], parts, order=4).model
    assert merged.counts == once.counts
    for name, array in once.tables._asdict().items():
        np.testing.assert_array_equal(getattr(merged.tables, name), array, err_msg=name)


sentences = st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8), min_size=1, max_size=12)


@settings(max_examples=30)
@given(sentences, st.integers(1, 4), st.integers(0, 2), st.sampled_from([None, 3]))
def test_probabilities_sum_to_one_after_any_history(tmp_path_factory, text, order, prune, limit):
    folder = tmp_path_factory.mktemp("counts")
    block = [" ".join(sentence) for sentence in text]
    model = estimate([block], folder, order, [0, prune], limit).model
    foretold = [id for id in range(model.vocabulary_size) if id != model.tables.begin_id]
    seen = [[model.tables.begin_id, *map(model.id, sentence)] for sentence in text]
    histories = [history[:end] for history in seen for end in range(len(history) + 1)]
    histories += [[model.tables.unknown_id] * 3, [model.tables.end_id]]
    for history in histories:
        total = sum(math.exp(model.log_prob(history, word)) for word in foretold)
        assert total == pytest.approx(1.0, abs=1e-5), history


def test_a_text_too_small_for_discounts_is_told(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("two words\n")
    call = ["language-model", "ngram", str(tmp_path / "text.txt"), "--order", "2", "--output", str(tmp_path)]
    assert main(call) == 0
    assert "too little text for discounts of 2-grams: took 0.5, 1.0, 1.5" in capsys.readouterr().err


def test_a_limited_vocabulary_learns_the_unknown_word(tmp_path):
    result = estimate([TEXT], tmp_path, order=2, vocabulary_limit=2)
    assert {result.model.word(id) for id in range(result.model.vocabulary_size)} == {
        "</s>",
        "<s>",
        "<unk>",
        "the",
        "cat",
    }
    words = " ".join(TEXT).split()
    assert result.words == len(words)
    assert result.unknown == sum(word not in ("the", "cat") for word in words)
    assert result.model.log_prob([], result.model.tables.unknown_id) > math.log(0.25)


def test_perplexity_of_a_uniform_model(tmp_path):
    # Three words that come equally often, and as many sentence ends, nothing unknown.
    model = estimate([["a b c"] * 4], tmp_path, order=1).model
    result = measure(model, [["a b c"], ["b x"]])
    known = np.exp([model.log_prob([], model.id(word)) for word in ("a", "b", "c", "</s>", "b", "</s>")])
    assert (result.words, result.unknown) == (5, 1)
    assert result.perplexity_known == pytest.approx(np.prod(known) ** (-1 / 6))
    assert result.perplexity > result.perplexity_known


def test_texts_are_unpacked_and_normalised(tmp_path):
    (tmp_path / "a.txt").write_text("“Café,” said  she:\n\n'\nisn't it\n")
    with gzip.open(tmp_path / "b.gz", "wt") as file:
        file.write("plain words\nwithout an end")
    with lzma.open(tmp_path / "c.xz", "wt") as file:
        file.write("more\n")
    (tmp_path / "d.jsonl").write_text('\ufeff{"text": "from a manifest"}\n\n')
    with gzip.open(tmp_path / "e.tsv.gz", "wt") as file:
        file.write('audio_filepath\ttext\na.wav\t"also\n')
    (tmp_path / "f.csv").write_text('text,speaker\n"of, a",librispeech\n')
    paths = [str(tmp_path / name) for name in ("a.txt", "b.gz", "c.xz", "d.jsonl", "e.tsv.gz", "f.csv")]
    assert [line for block in read_sentences(paths) for line in block] == [
        "cafe said she",
        "isn't it",
        "plain words",
        "without an end",
        "more",
        "from a manifest",
        "also",
        "of a",
    ]


def test_text_that_loses_letters_is_named(tmp_path, caplog):
    path = tmp_path / "a.txt"
    path.write_text("plain words\nFish & chips, twice!\nroom 101 in Łódź\n")
    assert list(read_sentences([str(path)])) == [["plain words", "fish chips twice", "room in odz"]]
    assert "a.txt: 2 sentences lose characters (10ł in 'room 101 in Łódź')" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"caf\xe9\n", "not UTF-8"),
        ("a.gz", b"no gzip", "gzip"),
        ("a.xz", b"no xz", "format"),
        ("a.jsonl", b'{"duration": 1}\n', 'a.jsonl:1: no "text"'),
        ("a.csv", b"path,sentence\na.wav,x\n", "a.csv:1: the heading has 'path', 'sentence'"),
        ("a.txt", b'{"audio_filepath": "a.wav", "text": "x"}\n', "name it .jsonl"),
        ("a.txt", b"\n", "no words"),
        ("missing", None, "No such file"),
    ],
)
def test_unreadable_text_is_one_clear_line(tmp_path, capsys, name, content, reason):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["language-model", "ngram", str(tmp_path / name), "--output", str(tmp_path / "lm")]) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert message.count("\n") == 1
    assert not (tmp_path / "lm").exists()


def test_pruning_that_falls_is_refused(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("a b c\n")
    for prune in (["1"], ["0", "2", "1"]):
        call = ["ngram", str(tmp_path / "a.txt"), "--prune", *prune, "--output", str(tmp_path)]
        assert main(["language-model", *call]) == 2
        assert "pruning" in capsys.readouterr().err


def test_convert_and_perplexity_commands_agree_with_the_model(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("\n".join(TEXT))
    call = ["language-model", "ngram", str(tmp_path / "text.txt"), "--arpa", "--output", str(tmp_path / "a")]
    assert main(call) == 0
    arpa = str(tmp_path / "a" / "ngram.arpa")
    assert main(["language-model", "convert", arpa, "--output", str(tmp_path / "b")]) == 0
    direct, converted = (NgramModel.load(tmp_path / name / "ngram.bin") for name in "ab")
    assert converted.counts == direct.counts
    for word in range(direct.vocabulary_size):
        history = [direct.id("on"), direct.id("the")]
        assert converted.log_prob(history, word) == pytest.approx(direct.log_prob(history, word), abs=1e-5)
    capsys.readouterr()
    assert main(["language-model", "perplexity", arpa, str(tmp_path / "text.txt")]) == 0
    expected = measure(read_arpa(arpa), [TEXT])
    assert f"OOV 0.00 %, perplexity {expected.perplexity:.1f}," in capsys.readouterr().out


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    (tmp_path / "text.txt").write_text(
        "\n".join(f"word{i}" for i in range(9_000)).translate(str.maketrans("0123456789", "abcdefghij"))
    )
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from training.commands import main;"
        "raise SystemExit(main(['language-model', 'ngram', 'text.txt', '--output', 'lm']))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: lm/counts-")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "lm").exists()
