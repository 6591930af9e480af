import os

import pytest

from asr.web.sessions import Sessions, evaluated


@pytest.fixture
def upload(tmp_path):
    def store(name):
        path = tmp_path / f"hash-of-{name}" / name
        path.parent.mkdir()
        path.write_bytes(b"sound")
        return path

    return store


def test_a_file_goes_when_its_page_closes(upload):
    sessions, path = Sessions(), upload("a.wav")
    sessions.begin("page", str(path))
    sessions.end("page")
    assert not path.parent.exists()


def test_a_file_goes_when_its_page_gets_another(upload):
    sessions, first, second = Sessions(), upload("a.wav"), upload("b.wav")
    sessions.begin("page", str(first))
    sessions.begin("page", str(second))
    assert not first.exists()
    assert second.exists()


def test_transcribing_again_keeps_the_file(upload):
    sessions, path = Sessions(), upload("a.wav")
    sessions.begin("page", str(path))
    sessions.begin("page", str(path))
    assert path.exists()


def test_a_file_stays_while_another_page_uses_it(upload):
    sessions, path = Sessions(), upload("a.wav")
    sessions.begin("one", str(path))
    sessions.begin("other", str(path))
    sessions.end("one")
    assert path.exists()
    sessions.end("other")
    assert not path.exists()


def test_a_page_that_uploaded_nothing_may_close():
    Sessions().end("page")


def test_a_transcript_goes_with_its_page(upload):
    sessions, path = Sessions(), upload("a.wav")
    session = sessions.begin("page", str(path))
    assert sessions.get("page") is session
    sessions.end("page")
    assert sessions.get("page") is None
    assert session.cancelled


def test_a_replaced_recording_is_cancelled(upload):
    sessions = Sessions()
    first = sessions.begin("page", str(upload("a.wav")))
    second = sessions.begin("page", str(upload("b.wav")))
    assert first.cancelled
    assert not second.cancelled


def test_a_file_in_use_counts_as_new(upload):
    sessions, path = Sessions(), upload("a.wav")
    os.utime(path, (0, 0))
    session = sessions.begin("page", str(path))
    session.keep_file()
    assert path.stat().st_mtime > 0
    sessions.end("page")
    with pytest.raises(FileNotFoundError):
        session.keep_file()


def test_all_files_of_a_page_go_when_it_closes_but_those_of_others(upload):
    sessions, files = Sessions(), [upload(f"{number}.wav") for number in range(4)]
    sessions.begin("page", str(files[0]))
    sessions.begin(evaluated("page"), *map(str, files[1:]))
    sessions.begin("other", str(files[3]))
    sessions.begin(evaluated("page"), *map(str, files[2:]))
    assert [path.exists() for path in files] == [True, False, True, True]
    sessions.end_all("page")
    assert [path.exists() for path in files] == [False, False, False, True]


def test_two_names_of_the_same_content_share_a_folder(upload):
    sessions, first = Sessions(), upload("a.wav")
    second = first.with_name("b.wav")
    second.write_bytes(b"sound")
    sessions.begin("page", str(first))
    sessions.begin("other", str(second))
    sessions.end("page")
    assert second.exists()
