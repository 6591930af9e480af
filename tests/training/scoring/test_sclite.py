"""Agreement with NIST's scoring toolkit (Debian package sctk), where that is installed."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from training.scoring.alignment import Alignments, align
from training.scoring.significance import matched_pairs
from training.scoring.transcripts import read_hypotheses, read_references

TOOLS = Path("/usr/lib/sctk/bin")


def tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=str(TOOLS))
    if not found:
        pytest.skip(f"needs {name}: apt-get install sctk")
    return found


def write_trn(path: Path, texts: list[str]) -> Path:
    lines = [f"{text} (speaker{row % 7}_{row:03})\n" for row, text in enumerate(texts)]
    path.write_text("".join(lines))
    return path


def with_errors(rng: np.random.Generator, texts: list[str], rate: float) -> list[str]:
    """Every text with words changed, and either dropped or added.

    Words are replaced by words that occur nowhere else, and a text never has both, since sclite and jiwer
    choose differently among alignments that cost jiwer the same: one takes "a b" recognised as "b x" for a
    deletion and an insertion, the other for two substitutions.
    """
    recognised = []
    for row, text in enumerate(texts):
        words = []
        for word in text.split():
            fate = rng.random()
            if fate > rate:
                words.append(word)
            elif fate > rate / 2:
                words.append(f"not{word}")
            elif row % 2:
                words += [word, f"new{rng.integers(100)}"]
        recognised.append(" ".join(words))
    return recognised


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path, Path]:
    rng = np.random.default_rng(7)
    texts = [" ".join(f"w{n}" for n in rng.permutation(60)[: rng.integers(0, 30)]) for _ in range(120)]
    reference = write_trn(tmp_path / "reference.trn", texts)
    first = write_trn(tmp_path / "first.trn", with_errors(rng, texts, 0.2))
    second = write_trn(tmp_path / "second.trn", with_errors(rng, texts, 0.3))
    return reference, first, second


def aligned(reference: Path, hypothesis: Path) -> Alignments:
    references = read_references(reference)
    recognised = read_hypotheses(hypothesis, references)["clean"].recognised
    return align([one.text for one in references], [recognised[one.id].text for one in references])


def sclite(reference: Path, hypothesis: Path, *outputs: str) -> str:
    kinds = [(path, path.suffix.lstrip(".")) for path in (reference, hypothesis)]
    command = [tool("sclite"), "-r", *kinds[0], "-h", *kinds[1], "-i", "rm", "-o", *outputs, "stdout"]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


def test_counts_of_every_utterance(files):
    reference, first, _ = files
    ours = aligned(reference, first).words
    theirs = {}
    for id, scores in re.findall(
        r"id: \((\S+)\)\nScores: \(#C #S #D #I\) ([\d ]+)", sclite(*files[:2], "pralign")
    ):
        theirs[id] = [int(count) for count in scores.split()]
    ids = [one.id for one in read_references(reference)]
    assert len(theirs) == len(ids)
    assert [theirs[id] for id in ids] == ours.tolist()


def test_rates(files):
    reference, first, _ = files
    words = aligned(reference, first).words
    row = re.search(r"Sum/Avg *\|([^|]+)\|([^|]+)\|", sclite(reference, first, "sum"))
    sentences, number = map(int, row[1].split())
    total = words.sum(axis=0)
    said = total[:3].sum()
    percentages = [*100 * total / said, 100 * total[1:].sum() / said, 100 * words[:, 1:].any(axis=1).mean()]
    assert (sentences, number) == (len(words), said)
    assert [float(cell) for cell in row[2].split()] == pytest.approx(percentages, abs=0.051)


def test_matched_pairs(files, tmp_path):
    reference, *hypotheses = files
    ours = matched_pairs(*(aligned(reference, one).operations for one in hypotheses))
    alignments = "".join(sclite(reference, one, "sgml") for one in hypotheses)
    command = [tool("sc_stats"), "-p", "-t", "mapsswe", "-v", "-n", str(tmp_path / "out")]
    subprocess.run(command, input=alignments, capture_output=True, text=True, check=True)
    said = re.search(
        r"# segs: (\d+)\).*mean: *(\S+)\).*Z Stat: *(\S+)\)", (tmp_path / "out.stats.mapsswe").read_text()
    )
    assert ours.segments > 100
    assert int(said[1]) == ours.segments
    assert float(said[2]) == pytest.approx(ours.mean, abs=6e-4)
    assert float(said[3]) == pytest.approx(ours.z, abs=6e-4)


def test_segment_times(tmp_path):
    reference, hypothesis = tmp_path / "r.stm", tmp_path / "h.ctm"
    reference.write_text(
        ";; a comment\n"
        "talk A anna 0.0 2.0 <o,f0> one two three\n"
        "talk A anna 2.0 4.0 <o,f0> IGNORE_TIME_SEGMENT_IN_SCORING\n"
        "talk A bert 4.0 6.0 four five\n"
    )
    words = [
        (0.1, "one"),
        (0.5, "too"),
        (1.7, "three"),
        (2.5, "noise"),
        (4.1, "four"),
        (4.6, "and"),
        (5.2, "five"),
    ]
    hypothesis.write_text("".join(f"talk A {start} 0.25 {word} 0.9\n" for start, word in words))
    references = read_references(reference)
    pairing = read_hypotheses(hypothesis, references)["clean"]
    assert [one.ignored for one in references] == [False, True, False]
    kept = [one for one in references if not one.ignored]
    ours = align([one.text for one in kept], [pairing.recognised[one.id].text for one in kept]).words.sum(
        axis=0
    )
    found = re.findall(r"Scores: \(#C #S #D #I\) ([\d ]+)", sclite(reference, hypothesis, "pralign"))
    assert (
        np.array([line.split() for line in found], int).sum(axis=0).tolist() == ours.tolist() == [4, 1, 0, 1]
    )
