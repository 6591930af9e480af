"""Results are whole or not there, and never in the place of another file."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr import files
from asr.files import write_new, write_whole


@pytest.fixture
def full_disk(monkeypatch):
    """Every file takes three bytes, then the disk is full."""
    real_open = files.Path.open

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, content):
            self.file.write(content[:3])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.Path, "open", lambda *args, **options: Full(real_open(*args, **options)))


def test_a_full_disk_leaves_nothing_behind(tmp_path, full_disk):
    with pytest.raises(OSError, match="No space"):
        write_new(tmp_path, "talk", ".txt", "hello")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_old_content(tmp_path, monkeypatch, request):
    path = tmp_path / "model.json"
    path.write_text("old")
    request.getfixturevalue("full_disk")
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "something new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["model.json"]


def test_namesakes_of_many_writers_at_once_are_all_kept(tmp_path):
    (tmp_path / "talk.txt").write_text("by hand")
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda i: write_new(tmp_path, "talk", ".txt", f"text {i}"), range(40)))
    assert {path.name for path in paths} == {f"talk-{i}.txt" for i in range(2, 42)}
    assert [path.read_text() for path in paths] == [f"text {i}" for i in range(40)]
    assert (tmp_path / "talk.txt").read_text() == "by hand"
    assert len(os.listdir(tmp_path)) == 41


def test_without_hard_links_namesakes_are_kept_too(tmp_path, monkeypatch):
    def link(*paths):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert [write_new(tmp_path, "a", ".txt", text).name for text in "xy"] == ["a.txt", "a-2.txt"]
    assert [(tmp_path / name).read_text() for name in ("a.txt", "a-2.txt")] == ["x", "y"]
    assert len(os.listdir(tmp_path)) == 2


@given(
    stem=st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=300)
)
def test_every_name_fits(tmp_path_factory, stem):
    folder = tmp_path_factory.mktemp("names")
    paths = [write_new(folder, stem, ".json", "") for _ in range(2)]
    assert len(set(paths)) == 2
    for path in paths:
        assert path.is_file() and path.suffix == ".json"
        assert stem.startswith(path.name.removesuffix(".json").removesuffix("-2"))
    if len(os.fsencode(stem)) <= 250:
        assert paths[0].name == f"{stem}.json"


def test_others_may_read_what_is_written(tmp_path):
    umask = os.umask(0o022)
    try:
        path = write_new(tmp_path, "talk", ".txt", "hello")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
