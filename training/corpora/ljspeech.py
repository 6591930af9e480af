"""LJ Speech (Ito and Johnson 2017): one reader of seven books. https://keithito.com/LJ-Speech-Dataset"""

from collections.abc import Iterator
from pathlib import Path

from training.corpora.corpus import Report, Utterance, by_id, pairs, read_lines

LAYOUT = "metadata.csv beside wavs/*.wav"
LICENCE = "public domain"


def utterances(source: Path, report: Report) -> Iterator[Utterance]:
    """All utterances, numbers written out; texts as they are written."""
    for path in sorted(source.rglob("metadata.csv")):
        rows = []
        for line in read_lines(path, report):
            id, *texts = line.split("|")
            if len(texts) == 2:
                rows.append((id, texts[1]))
            else:
                report(f"{path}: not ID|text|text with numbers written out: {line[:60]!r}")
        files = {file.stem: file for file in path.parent.glob("wavs/*.wav")}
        for _, sound, text in pairs(path, by_id(path, rows, report), files, report):
            yield Utterance(sound, text, "lj", is_written=True)
