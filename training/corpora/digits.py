"""Free Spoken Digit Dataset (Jackson et al.): one digit an utterance, 8 kHz.

https://github.com/Jakobovski/free-spoken-digit-dataset
"""

import re
from collections.abc import Iterator
from pathlib import Path

from training.corpora.corpus import Report, Utterance

LAYOUT = "recordings/DIGIT_SPEAKER_NUMBER.wav"
LICENCE = "CC BY-SA 4.0"
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEST_TAKES = 5  # the first of each digit by each speaker, in the corpus' own split


def utterances(source: Path, report: Report) -> Iterator[Utterance]:
    """The corpus' own split, with all speakers in both sets."""
    for sound in sorted(source.rglob("recordings/*.wav")):
        if match := re.fullmatch(r"(\d)_(\w+?)_(\d+)", sound.stem):
            name = "test" if int(match[3]) < TEST_TAKES else "train"
            yield Utterance(sound, DIGITS[int(match[1])], match[2], name)
        else:
            report(f"{sound}: its name is not DIGIT_SPEAKER_NUMBER.wav")
