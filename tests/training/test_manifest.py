import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.files import open_file
from training.manifest import Entry, ManifestError, distinct_names, read_manifest, write_manifest

GOOD = {"audio_filepath": "a.wav", "text": "x", "duration": 1.0}


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


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ({"text": "i see", "text_cased": "I see."}, "I see."),
        ({"text": "i see", "text_cased": " I see. "}, "I see."),
        ({"text": "i see"}, None),
        ({"text": "i see", "text_cased": None}, None),
        ({"text": "i see", "text_cased": ""}, None),
        ({"text": ""}, ""),
        ({"text": " ", "text_cased": "[hum]"}, ""),
    ],
)
def test_the_written_text(tmp_path, fields, written):
    [entry] = read_manifest(write_lines(tmp_path / "m.jsonl", GOOD | fields))
    assert entry.written == written


def test_offsets_make_ids_unique(tmp_path):
    row = {"audio_filepath": "long.wav", "text": "", "duration": 1.5}
    entries = read_manifest(
        write_lines(tmp_path / "m.jsonl", row, row | {"offset": 1.5}, row | {"offset": 3})
    )
    assert [entry.id for entry in entries] == ["long", "long@1.5", "long@3"]
    assert [entry.offset_seconds for entry in entries] == [0.0, 1.5, 3.0]


def write_table(path: Path, *rows: list[str], heading=("audio_filepath", "text", "duration")) -> Path:
    """A table as it is, without any quoting; compressed by the suffix."""
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    with open_file(path, "wt") as file:
        file.write("\ufeff" + "\r\n".join(delimiter.join(row) for row in [heading, *rows]))
    return path


@pytest.mark.parametrize(
    ("name", "written", "text"),
    [
        ("m.csv", '"one, ""two"""', 'one, "two"'),
        ("m.CSV.gz", '"one, two"', "one, two"),
        (
            "m.tsv",
            '"one, two"',
            '"one, two"',
        ),  # Common Voice quotes nothing: quotation marks belong to the text
        ("m.tsv.xz", '"one, two', '"one, two'),
    ],
)
def test_reads_tables(tmp_path, name, written, text):
    heading = ["audio_filepath", "text", "duration", "speaker", "gender"]
    path = write_table(tmp_path / name, ["a.wav", written, "1.5", "", "f"], heading=heading)
    assert read_manifest(path) == [Entry("a", tmp_path / "a.wav", text, 1.5, fields={"gender": "f"})]


def test_quotation_marks_in_a_tsv_join_no_rows(tmp_path):
    texts = ['"Go', "went", 'there"']
    rows = [[f"{number}.wav", text, "1"] for number, text in enumerate(texts)]
    assert [entry.text for entry in read_manifest(write_table(tmp_path / "m.tsv", *rows))] == texts
    with pytest.raises(ManifestError, match=r"m\.csv:2: a quoted field goes on in the next line"):
        read_manifest(write_table(tmp_path / "m.csv", *rows))


def test_rows_of_separators_are_skipped(tmp_path):
    row = ["a.wav", "x", "1", "", ""]
    path = write_table(
        tmp_path / "m.csv",
        row,
        ["", " ", "", "", ""],
        [""],
        heading=["audio_filepath", "text", "duration", "", ""],
    )
    assert read_manifest(path) == [Entry("a", tmp_path / "a.wav", "x", 1.0)]


@pytest.mark.parametrize(
    ("heading", "complaint"),
    [
        (
            "audio_filepath;text;duration",
            "the heading has 'audio_filepath;text;duration', but no .*delimiter must be ','",
        ),
        (
            "Audio_Filepath, text,duration",
            "the heading has 'Audio_Filepath', ' text', 'duration', but no \"audio_filepath\"",
        ),
        ("path,sentence,up_votes", "'path', 'sentence', 'up_votes'"),
        ("audio_filepath,text,duration,text", "'text' more than once"),
    ],
)
def test_a_heading_says_which_columns_were_found(tmp_path, heading, complaint):
    path = tmp_path / "m.csv"
    path.write_text(f"{heading}\na.wav;x;1\n")
    with pytest.raises(ManifestError, match=rf"m\.csv:1: .*{complaint}"):
        read_manifest(path)


def test_namesakes_keep_their_suffix_and_stretches_their_duration(tmp_path):
    rows = [
        GOOD | {"audio_filepath": "u0.wav"},
        GOOD | {"audio_filepath": "u0.mp3"},
        GOOD | {"audio_filepath": "u1.wav", "offset": None},
        GOOD | {"audio_filepath": "u1.wav", "duration": 0.5},
        GOOD | {"audio_filepath": "u1.wav", "duration": 0.5, "offset": 2},
        GOOD | {"audio_filepath": "u2.wav"},
        GOOD | {"audio_filepath": "u0.wav.flac"},
    ]
    entries = read_manifest(write_lines(tmp_path / "m.jsonl", *rows))
    assert [entry.id for entry in entries] == [
        "u0.wav@0+1",
        "u0.mp3",
        "u1.wav@0+1",
        "u1.wav@0+0.5",
        "u1@2",
        "u2",
        "u0.wav.flac@0+1",
    ]


def test_files_of_one_name_are_told_apart_by_their_folders():
    assert distinct_names([Path("x/dev.jsonl"), Path("x/test.jsonl")]) == ["dev", "test"]
    assert distinct_names([Path("x/a/dev.jsonl"), Path("b/dev.jsonl")]) == ["a/dev", "b/dev"]
    assert distinct_names([Path("x/a/dev.jsonl"), Path("y/a/dev.jsonl")]) == ["x/a/dev", "y/a/dev"]
    assert len(set(distinct_names([Path("dev.jsonl"), Path("dev.csv")]))) == 2
    with pytest.raises(ManifestError, match="given 2 times"):
        distinct_names([Path("dev.jsonl"), Path("./dev.jsonl")])


def test_an_absolute_audio_path_is_kept(tmp_path):
    row = {"audio_filepath": str(tmp_path / "elsewhere/a.wav"), "text": "", "duration": 1}
    (tmp_path / "sub").mkdir()
    assert read_manifest(write_lines(tmp_path / "sub/m.jsonl", row))[0].audio == tmp_path / "elsewhere/a.wav"


@pytest.mark.parametrize(
    ("second_line", "complaint"),
    [
        ({**GOOD, "text_cased": 5}, '"text_cased" is 5; give the text as it is written'),
        ("{broken", "not JSON"),
        ("[1]", "not a JSON object"),
        (GOOD, "is in line 1 already"),
        ({"text": "x", "duration": 1}, "audio_filepath"),
        ({"audio_filepath": "b.wav", "duration": 1}, '"text"'),
        ({"audio_filepath": "b.wav", "text": "x"}, '"duration" is None'),
        (GOOD | {"duration": "long"}, "'long'"),
        (GOOD | {"duration": -1}, "-1"),
        (GOOD | {"duration": True}, "True"),
        (GOOD | {"duration": 0}, "above 0"),
        ('{"audio_filepath": "b.wav", "text": "x", "duration": NaN}', "nan"),
        ('{"audio_filepath": "b.wav", "text": "x", "duration": 1' + 400 * "0" + "}", "give seconds"),
        ("[" * 100_000, "not JSON"),
        ('{"audio_filepath": "b.wav", "text": "\\ud800", "duration": 1}', "surrogate"),
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
    assert not list(tmp_path.iterdir())


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


@given(
    content=st.lists(
        st.sampled_from(
            [
                *"a1 \"'\\;,\t\n\r\0é{}[]:",
                "\ufeff",
                "audio_filepath",
                "text",
                "duration",
                '{"text": "x"',
                "a.wav",
            ]
        )
    ).map("".join),
    suffix=st.sampled_from([".jsonl", ".csv", ".tsv"]),
    heading=st.booleans(),
)
def test_any_content_is_read_or_refused_in_one_line(tmp_path_factory, content, suffix, heading):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    separator = "\t" if suffix == ".tsv" else ","
    first = separator.join(["audio_filepath", "text", "duration"]) + "\n" if heading else ""
    path.write_text(first + content, "utf-8", newline="")
    try:
        entries = read_manifest(path)
    except ManifestError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert len({entry.id for entry in entries}) == len(entries) > 0


cells = st.text(st.characters(exclude_characters="\t\r\n\0", exclude_categories=["Cs"]))


@given(texts=st.lists(cells, min_size=1), suffix=st.sampled_from([".csv", ".tsv"]))
def test_texts_of_a_table_are_read_as_they_are(tmp_path_factory, texts, suffix):
    path = tmp_path_factory.getbasetemp() / f"texts{suffix}"
    rows = [(f"{number}.wav", text, "1") for number, text in enumerate(texts)]
    with path.open("w", encoding="utf-8", newline="") as file:
        if suffix == ".csv":
            csv.writer(file).writerows([("audio_filepath", "text", "duration"), *rows])
        else:
            file.writelines("\t".join(row) + "\n" for row in [("audio_filepath", "text", "duration"), *rows])
    assert [entry.text for entry in read_manifest(path)] == texts
