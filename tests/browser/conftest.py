"""Debian's Chromium, driven by Playwright, with a microphone that beeps."""

from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
INSECURE_HOST = "hark.test"  # leads to this machine, but is neither localhost nor asked by https
WAIT_MILLISECONDS = 60_000  # a busy machine takes long to start a page


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    """A browser; the test is skipped where it is not installed."""
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
