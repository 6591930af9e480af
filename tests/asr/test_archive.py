"""What an archive holds: every kind of source, long recordings in parts, and what is refused."""

import json
import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import example, given
from hypothesis import strategies as st

fsspec = pytest.importorskip("fsspec", reason="needs fsspec: pip install '.[bulk]'")
pa = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install '.[bulk]'")
from pyarrow import parquet  # noqa: E402

from asr import archive  # noqa: E402
from asr.archive import Stretch, find_stretches, opened  # noqa: E402
from asr.audio import AudioError, load_audio  # noqa: E402

RATE = 16_000


@pytest.fixture
def folder(tmp_path, speak, monkeypatch) -> Path:
    """The working directory: b.wav, deep/a.flac, notes.txt."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("b.wav", speak(0.5, "hello world", 0.5), RATE)
    Path("deep").mkdir()
    soundfile.write("deep/a.flac", speak(0.5, "again", 0.5), RATE)
    Path("notes.txt").write_text("no recording")
    return tmp_path


def paths(source) -> list[str]:
    return [stretch.path for stretch in find_stretches(str(source))]


def test_folders_patterns_and_one_file(folder):
    both = [str(folder / "b.wav"), str(folder / "deep/a.flac")]
    assert paths(folder) == paths(".") == paths(f"file://{folder}") == paths("**/*.[wf]*a*") == both
    assert paths("*.wav") == paths("b.wav") == both[:1]
    assert paths("deep/*") == both[1:]


@pytest.mark.parametrize("name", ["list.jsonl", "list.csv", "list.tsv", "list.parquet", "list.jsonl.gz"])
def test_lists(folder, name):
    rows = [
        {"audio_filepath": "../b.wav", "text": "hello", "duration": 1.5},
        {"audio_filepath": str(folder / "deep" / "a.flac"), "text": 'a "word', "duration": 1},
    ]
    path = folder / "deep" / name
    if name.endswith(".parquet"):
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif ".jsonl" in name:
        with archive.fsspec.open(str(path), "wt", compression="infer") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        sign = "," if name.endswith(".csv") else "\t"
        texts = ["hello", '"a ""word"' if sign == "," else 'a "word']
        lines = [["audio_filepath", "text", "duration"]]
        lines += [
            [row["audio_filepath"], text, str(row["duration"])] for row, text in zip(rows, texts, strict=True)
        ]
        path.write_text("".join(sign.join(line) + "\n" for line in lines))
    assert paths(path) == [str(folder / "b.wav"), str(folder / "deep/a.flac")]
    assert all(stretch.end is None for stretch in find_stretches(str(path)))  # durations are rounded


def test_rows_of_one_file_are_stretches_and_each_is_taken_once(folder):
    rows = [
        {"audio_filepath": "b.wav", "duration": 0.5},
        {"audio_filepath": "b.wav", "offset": 0.5, "duration": 0.7},
    ]
    Path("list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[1]]))
    first, second = find_stretches("list.jsonl")
    assert (first.start, first.end, second.start, second.end) == (0.0, 0.5, 0.5, 1.2)
    with opened(second, pytest.fail) as (sound, start):
        samples, rate = sound
    assert (start, rate) == (0.5, RATE)
    assert np.array_equal(samples, load_audio("b.wav", 0.5, 0.7))


def test_another_file_system(folder):
    memory = fsspec.filesystem("memory")
    memory.pipe("/archive/b.wav", Path("b.wav").read_bytes())
    memory.pipe("/archive/deep/a.flac", Path("deep/a.flac").read_bytes())
    memory.pipe("/archive/list.csv", b"path\ndeep/a.flac\n")
    try:
        assert paths("memory://archive") == ["memory:///archive/b.wav", "memory:///archive/deep/a.flac"]
        assert paths("memory://archive/*.wav") == ["memory:///archive/b.wav"]
        [stretch] = find_stretches("memory://archive/list.csv")
        with opened(stretch, pytest.fail) as (sound, _):
            assert np.array_equal(load_audio(sound), load_audio("deep/a.flac"))
    finally:
        memory.rm("/archive", recursive=True)


def test_what_is_refused(folder):
    Path("empty").mkdir()
    parquet.write_table(pa.table({"text": ["hello"]}), "no-paths.parquet")
    parquet.write_table(pa.table({"path": [1, 2]}), "numbers.parquet")
    Path("broken.parquet").write_bytes(b"PAR1 and nothing else")
    Path("broken.jsonl").write_text('{"audio_filepath": \n')
    Path("without.jsonl").write_text('{"audio_filepath": "b.wav"}\n{"text": "hello"}\n')
    Path("nothing.csv").write_text("audio_filepath,text\n")
    Path("negative.csv").write_text("path,offset\nb.wav,-1\n")
    for source, message in {
        "missing": "no such file or folder",
        "missing.jsonl": "No such file",
        "*.ogg": "no recording",
        "empty": "no recording",
        "nowhere://x": "Protocol not known",
        "no-paths.parquet": "no column of paths",
        "numbers.parquet": "no column of paths",
        "broken.parquet": "[Pp]arquet",
        "broken.jsonl": "JSON",
        "without.jsonl": "entry 2",
        "nothing.csv": "no column of paths",
        "negative.csv": "offset",
    }.items():
        with pytest.raises(ValueError, match=message) as refusal:
            find_stretches(source)
        assert str(refusal.value).startswith(f"{source}: ")
    name = os.fsdecode(b"caf\xe9.wav")
    shutil.copy("b.wav", name)
    with pytest.raises(ValueError, match="not UTF-8"):
        find_stretches(".")


def test_a_file_that_is_not_there_is_left_to_who_reads_it(folder):
    Path("list.csv").write_text("path\nmissing.wav\nnowhere://a.wav\n")
    stretch, other = find_stretches("list.csv")
    with pytest.raises(ValueError, match="nowhere"), opened(other, pytest.fail):
        pass
    with opened(stretch, pytest.fail) as (sound, _), pytest.raises(AudioError, match=r"missing\.wav"):
        load_audio(sound)


@example([("\0", 0.0, 1.0)])
@example([("nowhere://a", 0.0, 1.0)])
@given(st.lists(st.tuples(st.text(min_size=1), st.floats(0, 1e5), st.floats(0.001, 1e5)), min_size=1))
def test_any_name_and_time_in_a_list(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("list") / "list.jsonl"
    keys = ("audio_filepath", "offset", "duration")
    path.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows))
    try:
        found = find_stretches(str(path))
    except ValueError as error:
        assert str(error).startswith(f"{path}: ") or "UTF-8" in str(error)
        return
    assert len(set(found)) == len(found) <= len(rows)
    for stretch in found:
        assert stretch.path.startswith("/") or "://" in stretch.path
        assert stretch.end is None or stretch.start <= stretch.end


@pytest.fixture
def long(folder, speak, monkeypatch) -> Path:
    """Two minutes of two voices that take turns and once speak together; long, and of parts of 30 s."""
    monkeypatch.setattr(archive, "LONG_SECONDS", 60.0)
    monkeypatch.setattr(archive, "PART_SECONDS", 30.0)
    monkeypatch.setattr(archive, "PAUSE_SECONDS", 10.0)
    monkeypatch.setattr(archive, "MIN_LONG_BYTES", 1000)
    words = ["hello world", "again and again", "a third one", "the end of it"]
    left = speak(*(part for number in range(26) for part in (words[number % 4], 3.1)))
    right = speak(1.0, *(part for number in range(18) for part in (words[number % 3], 4.9)))
    length = min(len(left), len(right))
    soundfile.write("long.wav", np.stack([left[:length], right[:length]], axis=1), RATE)
    assert 100 < length / RATE < 140
    return folder / "long.wav"


def joined(recognizer, stretches):
    for stretch in stretches:
        with opened(stretch, pytest.fail) as (sound, start):
            transcript = recognizer.transcribe(sound)
        for segment in transcript.segments:
            for word in segment.words:
                yield word.text, segment.channel or "both", start + word.start, start + word.end


def test_a_long_recording_is_read_in_parts_as_if_it_were_whole(long, recognizer):
    parts = find_stretches(str(long))
    assert [part.start for part in parts] == [30.0 * number for number in range(len(parts))]
    assert len(parts) >= 3 and parts[-1].end is None
    assert {part.whole_seconds for part in parts} == {soundfile.info(long).duration}
    found = sorted(joined(recognizer, parts), key=lambda word: word[1:])
    whole = sorted(joined(recognizer, [Stretch(str(long))]), key=lambda word: word[1:])
    assert [word[:2] for word in found] == [word[:2] for word in whole]
    assert {channel for _, channel, *_ in whole} >= {"left", "right"}
    for ours, theirs in zip(found, whole, strict=True):
        assert ours[2:] == pytest.approx(theirs[2:], abs=0.09)  # two steps


def test_parts_meet_also_where_there_is_no_pause(long, speak):
    samples = speak(*["without any pause at all"] * 60)
    soundfile.write(long, samples, RATE)
    parts = find_stretches(str(long))
    assert len(parts) > 1
    ends = []
    for part in parts:
        with opened(part, pytest.fail) as ((cut, rate), start):
            ends.append((start, start + len(cut) / rate))
    assert ends[0][0] == 0.0 and ends[-1][1] == pytest.approx(len(samples) / RATE, abs=1e-4)
    for before, after in pairwise(ends):
        assert before[1] == pytest.approx(after[0], abs=1e-4)


def test_a_long_recording_that_ends_early_is_read_to_its_end(long):
    data = long.read_bytes()
    parts = find_stretches(str(long))
    long.write_bytes(data[: int(len(data) * 0.4)])  # in the second part
    with opened(parts[1], lambda message: None) as ((samples, rate), start):
        assert start + len(samples) / rate == pytest.approx(0.4 * parts[0].whole_seconds, abs=0.1)
    with pytest.raises(AudioError, match="ends before"), opened(parts[-1], pytest.fail):
        pass
