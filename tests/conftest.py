"""What several tests share: where speech for measuring may lie, and a browser."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Property tests say what is right, not how busy the machine is.
hypothesis.settings.register_profile("hark", deadline=None)
hypothesis.settings.load_profile("hark")

# Before any test imports gradio, TensorFlow or ONNX Runtime.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

CHROMIUM = Path("/usr/bin/chromium")
INSECURE_HOST = "hark.test"  # leads to this machine, but is neither localhost nor asked by https
WAIT_MILLISECONDS = 60_000  # a busy machine takes long to start a page
SHARED_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real speech beside the checkout; the test is skipped where it is absent."""
    if not (SHARED_DATA / "dev-read.jsonl").exists():
        pytest.skip("needs the speech in ../shared/data")
    return SHARED_DATA


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    """Debian's Chromium with a microphone that beeps, one for all tests: Playwright drives no second one.

    The test is skipped where it is not installed.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}: apt-get install chromium")
    playwright.expect.set_options(timeout=WAIT_MILLISECONDS)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",  # which Chromium refuses to root, the usual user in a container
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--host-resolver-rules=MAP {INSECURE_HOST} 127.0.0.1",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def insecure_host() -> str:
    return INSECURE_HOST
