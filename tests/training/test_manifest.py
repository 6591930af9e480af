import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.manifest import Entry, ManifestError, read_manifest, write_manifest


def write_lines(path: Path, *rows: dict | str) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8"
    )
    return path


def test_reads_nemo_names_and_keeps_the_rest(tmp_path):
    row = {
        "audio_filepath": "audio/a.opus",
        "text": "hé",
        "duration": 2,
        "speaker": 7,
        "corpus": "x",
        "age": 3,
    }
    [entry] = read_manifest(write_lines(tmp_path / "m.jsonl", row))
    assert entry == Entry(
        "audio/a", tmp_path / "audio/a.opus", "hé", 2.0, 0.0, "7", {"corpus": "x", "age": 3}
    )


def test_offsets_make_ids_unique(tmp_path):
    row = {"audio_filepath": "long.wav", "text": "", "duration": 1.5}
    entries = read_manifest(
        write_lines(tmp_path / "m.jsonl", row, row | {"offset": 1.5}, row | {"offset": 3})
    )
    assert [entry.id for entry in entries] == ["long", "long@1.5", "long@3"]
    assert [entry.offset_seconds for entry in entries] == [0.0, 1.5, 3.0]


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_reads_tables(tmp_path, suffix, delimiter):
    rows = [
        ["audio_filepath", "text", "duration", "speaker", "gender"],
        ["a.wav", '"one, two"', "1.5", "", "f"],
    ]
    path = tmp_path / f"m{suffix}"
    path.write_text("\n".join(delimiter.join(row) for row in rows), "utf-8-sig")
    assert read_manifest(path) == [Entry("a", tmp_path / "a.wav", "one, two", 1.5, fields={"gender": "f"})]


def test_an_absolute_audio_path_is_kept(tmp_path):
    row = {"audio_filepath": str(tmp_path / "elsewhere/a.wav"), "text": "", "duration": 1}
    (tmp_path / "sub").mkdir()
    assert read_manifest(write_lines(tmp_path / "sub/m.jsonl", row))[0].audio == tmp_path / "elsewhere/a.wav"


GOOD = {"audio_filepath": "a.wav", "text": "x", "duration": 1.0}


@pytest.mark.parametrize(
    ("second_line", "complaint"),
    [
        ("{broken", "not JSON"),
        ("[1]", "not a JSON object"),
        (GOOD, "stands in line 1 already"),
        ({"text": "x", "duration": 1}, "audio_filepath"),
        ({"audio_filepath": "b.wav", "duration": 1}, '"text"'),
        ({"audio_filepath": "b.wav", "text": "x"}, '"duration" is None'),
        (GOOD | {"duration": "long"}, "'long'"),
        (GOOD | {"duration": -1}, "-1"),
        (GOOD | {"duration": True}, "True"),
        (GOOD | {"duration": 0}, "above 0"),
        ('{"audio_filepath": "b.wav", "text": "x", "duration": NaN}', "nan"),
        (GOOD | {"offset": -0.5}, "-0.5"),
    ],
)
def test_errors_name_file_line_and_remedy(tmp_path, second_line, complaint):
    path = write_lines(tmp_path / "m.jsonl", GOOD, second_line)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:2: ")
    assert complaint in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "lines", ["audio_filepath,text,duration\na.wav,x\n", 'audio_filepath,text,duration\na.wav,"x,1\n']
)
def test_a_broken_table_names_its_line(tmp_path, lines):
    path = tmp_path / "m.csv"
    path.write_text(lines)
    with pytest.raises(ManifestError, match=r"m\.csv:[12]: .*quote"):
        read_manifest(path)


def test_missing_empty_and_foreign_files(tmp_path):
    with pytest.raises(ManifestError, match="no such manifest"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(ManifestError, match="holds no utterance"):
        read_manifest(write_lines(tmp_path / "empty.jsonl", ""))
    (tmp_path / "latin.jsonl").write_bytes(
        json.dumps(GOOD | {"text": "é"}, ensure_ascii=False).encode("latin-1")
    )
    with pytest.raises(ManifestError, match="save it as UTF-8"):
        read_manifest(tmp_path / "latin.jsonl")


def test_a_failed_write_leaves_no_manifest(tmp_path):
    def entries():
        yield Entry("a", tmp_path / "a.wav", "x", 1.0)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_manifest(tmp_path / "m.jsonl", entries())
    assert not (tmp_path / "m.jsonl").exists()


names = st.from_regex(r"[a-z0-9é_-]{1,8}(/[a-z0-9]{1,4}){0,2}", fullmatch=True)
seconds = st.floats(0.001, 1e5)


@given(
    rows=st.lists(
        st.tuples(
            names,
            st.text(),
            seconds,
            st.just(0.0) | st.integers(1, 10**8).map(lambda ms: ms / 1000),
            st.text(),
            st.dictionaries(
                st.sampled_from(["corpus", "gender", "n"]), st.text() | st.integers() | st.none()
            ),
        ),
        min_size=1,
        unique_by=lambda row: (row[0], row[3]),
    )
)
def test_what_is_written_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "round-trip.jsonl"
    entries = [
        Entry(
            f"{name}@{offset:.10g}" if offset else name,
            path.parent / f"{name}.wav",
            text,
            duration,
            offset,
            speaker,
            fields,
        )
        for name, text, duration, offset, speaker, fields in rows
    ]
    write_manifest(path, entries)
    assert read_manifest(path) == entries


def test_shared_manifests(shared_data):
    entries = read_manifest(shared_data / "dev-read.jsonl")
    assert len(entries) == 85
    assert all(entry.audio.is_file() and entry.speaker for entry in entries)
