"""What several test files of the server use."""

import pytest

from asr.tokenizer import Tokenizer
from tests.asr.conftest import tone_recognizer


@pytest.fixture(scope="module")
def recognizer():
    recognizer = tone_recognizer()
    recognizer.bundle.tokenizer = Tokenizer.characters("en")
    return recognizer
