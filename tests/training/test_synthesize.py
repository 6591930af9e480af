from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.commands import main
from training.synthesize import ENOUGH, choose, readable

WORDS = st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "off"])
LINES = st.lists(st.lists(WORDS, min_size=1, max_size=8).map(" ".join), max_size=20)


@given(LINES, st.floats(0, 30))
def test_only_readable_lines_and_none_twice(lines, seconds):
    chosen = choose(lines, Counter(), seconds)
    assert set(chosen) <= set(lines)
    assert len(set(chosen)) == len(chosen)
    assert all(map(readable, chosen))
    assert bool(chosen) == (seconds > 0 and any(map(readable, lines)))


@given(LINES)
def test_the_first_line_has_the_largest_gain(lines):
    in_text = Counter(word for line in lines for word in line.split())
    gain = {line: sum(in_text[w] for w in set(line.split())) / (len(line) + 15) for line in lines}
    for line in choose(lines, Counter(), 0.001):
        assert gain[line] == max(gain[other] for other in lines if readable(other))


def test_what_is_recorded_comes_last():
    known, new = "the cat sat there", "quillan bowed to mantelish"
    lines = [known, known, known, new]
    assert choose(lines, Counter(), 0.001) == [known]
    assert choose(lines, Counter(dict.fromkeys(known.split(), ENOUGH)), 0.001) == [new]


@pytest.mark.parametrize("line", ["too short here", "don ram n came home", "word " * 31])
def test_unreadable(line):
    assert not readable(line)


def test_a_missing_text_is_one_line(tmp_path, capsys):
    call = ["synthesize", str(tmp_path / "none.txt"), "--voice", "v.onnx", "--output", str(tmp_path / "out")]
    assert main(call) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "none.txt" in line


def test_a_voice_that_cannot_be_used_is_one_line(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on a mat\n")
    call = [str(text), "--voice", "none.onnx", "--output", str(tmp_path / "out")]
    assert main(["synthesize", *call]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: none.onnx: ") or "pip install piper-tts" in line
    assert not (tmp_path / "out.jsonl").exists()
