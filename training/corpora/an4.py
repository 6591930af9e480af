"""CMU AN4: spelled letters, numbers and commands, the smallest corpus with published results (CMU, 1991)."""

import re
from collections.abc import Iterator
from pathlib import Path

from training.corpora.corpus import Report, Utterance, by_id, pairs, read_lines, sounds

LAYOUT = "etc/an4_train.transcription, etc/an4_test.transcription and wav/*/SPEAKER/*.sph (or .wav)"
LICENCE = "free for any purpose, by Carnegie Mellon University"
_LINE = re.compile(r"(?:<s>)?(.*?)(?:</s>)?\s*\(([^()]+)\)")


def utterances(source: Path, report: Report) -> Iterator[Utterance]:
    """Training and test set; texts in capitals."""
    found = sounds(source)
    for name, folder in (("train", "an4_clstk"), ("test", "an4test_clstk")):
        for path in sorted(source.rglob(f"an4_{name}.transcription")):
            rows = []
            for line in read_lines(path, report):
                if match := _LINE.fullmatch(line):
                    rows.append((match[2].strip(), match[1].strip()))
                else:
                    report(f"{path}: no (id) at the end of {line!r}")
            files = {file.stem: file for file in found if folder in file.parts}
            for _, sound, text in pairs(path, by_id(path, rows, report), files, report):
                yield Utterance(sound, text, sound.parent.name, name)
