"""VCTK (Yamagishi et al. 2019): newspaper sentences in many accents. https://doi.org/10.7488/ds/2645"""

from collections.abc import Iterator
from pathlib import Path

from training.corpora.corpus import Report, Utterance, pairs, read_lines, sounds

LAYOUT = "txt/SPEAKER/ID.txt and wav48*/SPEAKER/ID.wav or ID_mic1.flac"
LICENCE = "CC BY 4.0"


def utterances(source: Path, report: Report) -> Iterator[Utterance]:
    """The recordings of the first microphone; texts as they are written."""
    texts = {path.stem: path for path in source.rglob("txt/*/*.txt")}
    files = {path.stem.removesuffix("_mic1"): path for path in sounds(source) if "_mic2" not in path.stem}
    for _, sound, path in pairs(source / "txt", texts, files, report):
        if lines := read_lines(path, report):
            yield Utterance(sound, " ".join(lines), path.parent.name, is_written=True)
        else:
            report(f"{path}: no text")
