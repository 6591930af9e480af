"""From uploaded files to references: texts, manifests, zip files, and names that want other files."""

import io
import json
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.manifest import ManifestError
from training.scoring import uploads
from training.scoring.uploads import read_text, read_uploads

NAMES = st.text(st.sampled_from("ab./\\: <>\n\0é😀"), min_size=1, max_size=12)


def manifest_of(*names, **fields):
    rows = [{"audio_filepath": name, "text": "hello", "duration": 1, **fields} for name in names]
    return "".join(json.dumps(row) + "\n" for row in rows)


def zip_of(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.txt", "\ufeff Hello,\n you. \n", "Hello,\n you."),
        (
            "a.srt",
            "1\r\n00:00:01,000 --> 00:00:02,000\r\n{\\an8}<i>Hello</i>\r\nyou\r\n\r\n"
            "2\r\n00:00:03,000 --> 00:00:04,000\r\nAnd\r\n\r\nbye\r\n",
            "Hello you\nAnd bye",
        ),
        (
            "a.VTT",
            "WEBVTT - a heading\nLanguage: en\n\nNOTE nobody says this\n\nSTYLE\n::cue { color: red }\n\n"
            "first\n00:01.000 --> 00:02.000 align:left\n<v Ann>Hello &amp; <c.loud>you</c>\n\n"
            "00:03.000 --> 00:04.000\n1984\n",
            "Hello & you\n1984",
        ),
    ],
)
def test_texts_are_what_is_said(tmp_path, name, content, text):
    (tmp_path / name).write_bytes(content.encode())
    assert read_text(tmp_path / name) == text


@given(st.text(), st.sampled_from(uploads.TEXTS))
def test_any_text_is_read(tmp_path_factory, content, suffix):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_text(content, encoding="utf-8", errors="replace")
    assert "-->" not in read_text(path) or suffix == ".txt" or content.count("-->") > 1


def test_what_is_no_text_is_one_line(tmp_path):
    (tmp_path / "a.srt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"^a\.srt: not UTF-8"):
        read_text(tmp_path / "a.srt")


def test_a_recording_and_its_text(tmp_path):
    (tmp_path / "a.wav").touch()
    [one] = read_uploads([tmp_path / "a.wav"], "Hello.", tmp_path)
    assert (one.id, one.text, one.audio) == ("a.wav", "Hello.", tmp_path / "a.wav")


def test_recordings_of_a_manifest_in_a_zip_file(tmp_path):
    members = {"corpus/dev.jsonl": manifest_of("x/a.wav", "C:\\y\\b.flac"), "other/a.wav": "a", "b.flac": "b"}
    archive = zip_of(
        tmp_path / "a.zip", **members, **{"__MACOSX/._a.wav": "no sound", "corpus/notes.txt": ""}
    )
    found = read_uploads([archive], "", tmp_path)
    assert [one.audio.read_text() for one in found] == ["a", "b"]
    assert {(one.set, one.audio.parent) for one in found} == {("dev", tmp_path)}


def test_a_name_that_the_server_has_changed_is_found(tmp_path):
    (tmp_path / "dev.jsonl").write_text(manifest_of("what?.wav"))
    (tmp_path / "what.wav").touch()
    files = [tmp_path / "dev.jsonl", tmp_path / "what.wav"]
    [one] = read_uploads(files, "", tmp_path, lambda name: name.replace("?", ""))
    assert one.audio == tmp_path / "what.wav"


@given(NAMES)
def test_a_manifest_opens_nothing_but_uploaded_files(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp() / "hostile"
    folder.mkdir(exist_ok=True)
    (folder.parent / "a").write_text("not uploaded")
    (folder / "b").write_text("uploaded")
    (folder / "dev.jsonl").write_text(manifest_of(name))
    try:
        [one] = read_uploads([folder / "dev.jsonl", folder / "b"], "", folder)
    except ManifestError as error:
        assert str(error).startswith("dev.jsonl") and str(folder) not in str(error)
    else:
        assert one.audio == folder / "b" and name.rstrip("/.").endswith("b")


@given(st.lists(st.tuples(NAMES, st.binary(max_size=9)), max_size=4), st.data())
def test_a_zip_file_writes_nowhere_else(tmp_path_factory, members, data):
    base = tmp_path_factory.getbasetemp() / "zips"
    folder = base / "one" / "two"
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, inside in {name.split("\0")[0] or "x": inside for name, inside in members}.items():
            archive.writestr(f"../{name}", inside)
    damaged = bytearray(content.getvalue())
    if data.draw(st.booleans()):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    (base / "a.zip").write_bytes(damaged)
    try:
        read_uploads([base / "a.zip"], "hello", folder)
    except ManifestError as error:
        assert str(folder) not in str(error)
    assert {path.name for path in base.rglob("*") if path.is_dir()} == {"one", "two"}
    assert {path.name for path in base.rglob("*") if path.is_file() and path.parent != folder} == {"a.zip"}


@pytest.mark.parametrize(
    ("names", "content", "message"),
    [
        ([], "", "no recording"),
        (["a.wav"], "", "no reference: paste what is said in a.wav"),
        (["a.wav", "b.wav"], "", "2 files, and no manifest"),
        (["dev.jsonl"], manifest_of("/etc/passwd"), "dev.jsonl names passwd, which was not uploaded"),
        (["dev.jsonl", "a.wav"], manifest_of("x/a.wav", "y/a.wav"), "dev.jsonl names two files a.wav"),
        (["dev.jsonl", "a.wav"], manifest_of("a.wav", "a.wav"), "dev.jsonl:2: a.wav is in line 1 already"),
        (["dev.jsonl", "a.wav"], manifest_of("a.wav", duration="x"), 'dev.jsonl:1: "duration" is'),
        (["dev.jsonl", "x.jsonl"], "", "dev.jsonl and x.jsonl are both manifests"),
        (["dev.jsonl", "a.zip"], "", "a.zip: cannot be unpacked"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, names, content, message):
    for name in names:
        (tmp_path / name).write_text(content if name == "dev.jsonl" else "")
    with pytest.raises(ManifestError) as caught:
        read_uploads([tmp_path / name for name in names], "", tmp_path)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_limits(tmp_path, monkeypatch):
    bomb = zip_of(tmp_path / "bomb.zip", **{f"{number}.wav": b"\0" * 1_000_000 for number in range(4)})
    monkeypatch.setattr(uploads, "LARGEST_MB", 2.5)
    with pytest.raises(ManifestError, match=r"more than 1000 files or 2\.5 MB"):
        read_uploads([bomb], "hello", tmp_path)
    assert not (tmp_path / "2.wav").exists()
    monkeypatch.setattr(uploads, "LONGEST_TEXT", 3)
    with pytest.raises(ManifestError, match="more than 3 characters"):
        read_uploads([tmp_path / "0.wav"], "hello", tmp_path)
