import os

import pytest

from asr.web.visits import Visits


@pytest.fixture
def upload(tmp_path):
    def store(name):
        path = tmp_path / f"hash-of-{name}" / name
        path.parent.mkdir()
        path.write_bytes(b"sound")
        return path

    return store


def test_a_file_goes_when_its_page_closes(upload):
    visits, path = Visits(), upload("a.wav")
    visits.begin("page", str(path))
    visits.end("page")
    assert not path.parent.exists()


def test_a_file_goes_when_its_page_plays_another(upload):
    visits, first, second = Visits(), upload("a.wav"), upload("b.wav")
    visits.begin("page", str(first))
    visits.begin("page", str(second))
    assert not first.exists()
    assert second.exists()


def test_transcribing_again_keeps_the_file(upload):
    visits, path = Visits(), upload("a.wav")
    visits.begin("page", str(path))
    visits.begin("page", str(path))
    assert path.exists()


def test_a_file_stays_while_another_page_plays_it(upload):
    visits, path = Visits(), upload("a.wav")
    visits.begin("one", str(path))
    visits.begin("other", str(path))
    visits.end("one")
    assert path.exists()
    visits.end("other")
    assert not path.exists()


def test_a_page_that_uploaded_nothing_may_close():
    Visits().end("page")


def test_a_transcript_goes_with_its_page(upload):
    visits, path = Visits(), upload("a.wav")
    visit = visits.begin("page", str(path))
    assert visits.get("page") is visit
    visits.end("page")
    assert visits.get("page") is None
    assert visit.over


def test_a_recording_replaced_by_another_is_over(upload):
    visits = Visits()
    first = visits.begin("page", str(upload("a.wav")))
    second = visits.begin("page", str(upload("b.wav")))
    assert first.over
    assert not second.over


def test_a_file_in_use_counts_as_new(upload):
    visits, path = Visits(), upload("a.wav")
    os.utime(path, (0, 0))
    visit = visits.begin("page", str(path))
    visit.keep_file()
    assert path.stat().st_mtime > 0
    visits.end("page")
    with pytest.raises(FileNotFoundError):
        visit.keep_file()
