"""The page on a recogniser that needs no model, for the tests of this folder."""

import pytest

from asr.turns import Turns
from asr.web.page import build_page, serving_options
from tests.browser.recordings import noise, write
from tests.loudness_recognizer import LoudnessRecognizer

DESKTOP, PHONE = {"width": 1280, "height": 720}, {"width": 390, "height": 844}


def pytest_addoption(parser):
    parser.addoption("--phone", action="store_true", help="browser tests on a phone's screen")


@pytest.fixture(scope="session")
def screen(request):
    """Width and height in CSS pixels."""
    return PHONE if request.config.getoption("--phone", default=False) else DESKTOP


@pytest.fixture(scope="module")
def recognizer():
    return LoudnessRecognizer()


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def url(recognizer, uploads):
    yield from serve(uploads, recognizer)


@pytest.fixture(scope="module")
def searching_url(uploads):
    """A page whose recogniser has a language model, and with it options."""
    yield from serve(uploads, LoudnessRecognizer(has_language_model=True))


def serve(uploads, *recognizers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        patch.setenv("NO_PROXY", "127.0.0.1")
        page = build_page({one.bundle.name: one for one in recognizers}, Turns(1))
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **serving_options())
        yield url
        page.close(verbose=False)


@pytest.fixture
def page(chromium, url, recognizer, screen):
    recognizer.pause_seconds = 0.0
    page = chromium.new_page(viewport=screen)
    page.goto(url)
    yield page
    page.close()


@pytest.fixture
def recording(tmp_path):
    """6 s of noise: three utterances for the recogniser of these tests."""
    return write(tmp_path / "noise.wav", noise(6))
