import pytest

from asr.web.uploads import Uploads


@pytest.fixture
def upload(tmp_path):
    def store(name):
        path = tmp_path / f"hash-of-{name}" / name
        path.parent.mkdir()
        path.write_bytes(b"sound")
        return path

    return store


def test_a_file_goes_when_its_page_closes(upload):
    uploads, path = Uploads(), upload("a.wav")
    uploads.hold("page", str(path))
    uploads.release("page")
    assert not path.parent.exists()


def test_a_file_goes_when_its_page_plays_another(upload):
    uploads, first, second = Uploads(), upload("a.wav"), upload("b.wav")
    uploads.hold("page", str(first))
    uploads.hold("page", str(second))
    assert not first.exists()
    assert second.exists()


def test_transcribing_again_keeps_the_file(upload):
    uploads, path = Uploads(), upload("a.wav")
    uploads.hold("page", str(path))
    uploads.hold("page", str(path))
    assert path.exists()


def test_a_file_stays_while_another_page_plays_it(upload):
    uploads, path = Uploads(), upload("a.wav")
    uploads.hold("one", str(path))
    uploads.hold("other", str(path))
    uploads.release("one")
    assert path.exists()
    uploads.release("other")
    assert not path.exists()


def test_a_page_that_uploaded_nothing_may_close():
    Uploads().release("page")
