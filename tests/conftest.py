"""Fixtures of several tests: the folder of real speech, and a browser."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Property tests must not fail on a busy machine.
hypothesis.settings.register_profile("hark", deadline=None)
hypothesis.settings.load_profile("hark")

# Before any test imports gradio, TensorFlow or ONNX Runtime.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

CHROMIUM = Path("/usr/bin/chromium")
INSECURE_HOST = "hark.test"  # resolves to this machine, but is neither localhost nor https
WAIT_MILLISECONDS = 60_000  # a busy machine is slow to start a page
SHARED_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real speech beside the checkout; skips the test if it is absent."""
    if not (SHARED_DATA / "dev-read.jsonl").exists():
        pytest.skip("needs the speech in ../shared/data")
    return SHARED_DATA


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    """Debian's Chromium with a microphone that beeps. One for all tests, since Playwright starts only one.

    Skips the test if it is not installed.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}: apt-get install chromium")
    playwright.expect.set_options(timeout=WAIT_MILLISECONDS)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",  # Chromium has no sandbox for root, the usual user in a container
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
