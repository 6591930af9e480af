import os

import pytest

from asr.web.sessions import Sessions


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
