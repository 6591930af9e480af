"""speechocean762 (Zhang et al. 2021): English of Mandarin speakers, half of them children. https://www.openslr.org/101"""

from collections.abc import Iterator
from pathlib import Path

from training.corpora.corpus import Report, Utterance, by_id, pairs, read_lines

LAYOUT = "train/text and test/text, and WAVE/SPEAKERxxxx/ID.WAV"
LICENCE = "free for commercial and non-commercial use"


def utterances(source: Path, report: Report) -> Iterator[Utterance]:
    """Training and test set, which share no speaker; texts in capitals."""
    sound_of = {path.stem: path for path in source.rglob("WAVE/*/*.[Ww][Aa][Vv]")}
    for name in ("train", "test"):
        for path in sorted(source.rglob(f"{name}/text")):
            rows = (line.split(maxsplit=1) for line in read_lines(path, report))
            texts = by_id(path, ((id, " ".join(text)) for id, *text in rows), report)
            files = {id: sound_of[id] for id in texts if id in sound_of}  # of both sets in one folder
            for _, sound, text in pairs(path, texts, files, report):
                yield Utterance(sound, text, sound.parent.name, name)
