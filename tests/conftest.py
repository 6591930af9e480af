"""What several tests share: where speech for measuring may lie."""

import os
from pathlib import Path

import pytest

# Before any test imports gradio or TensorFlow.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

SHARED_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real speech beside the checkout; the test is skipped where it is absent."""
    if not (SHARED_DATA / "dev-read.jsonl").exists():
        pytest.skip("needs the speech in ../shared/data")
    return SHARED_DATA
