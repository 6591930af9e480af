"""LibriSpeech (Panayotov et al. 2015): read books. https://www.openslr.org/12"""

from collections.abc import Iterator
from pathlib import Path

from training.corpora.corpus import Report, Utterance, by_id, pairs, read_lines

LAYOUT = "SET/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt beside .flac files"
LICENCE = "CC BY 4.0"
_SERVER = "https://www.openslr.org/resources/12"
ARCHIVES = {
    f"{_SERVER}/train-clean-100.tar.gz": "2a93770f6d5c6c964bc36631d331a522",
    f"{_SERVER}/dev-clean.tar.gz": "42e2234ba48799c1f50f24a7926300a1",
    f"{_SERVER}/dev-other.tar.gz": "c8d0bcc9cca99d4f8b62fcc847357931",
    f"{_SERVER}/test-clean.tar.gz": "32fa31d27d2e1cad72775fee3f4849a9",
    f"{_SERVER}/test-other.tar.gz": "fb5a50374b501bb3bac4815ee91d3135",
}


def utterances(source: Path, report: Report) -> Iterator[Utterance]:
    """Each set of the corpus that is there; texts in capitals."""
    for path in sorted(source.rglob("*.trans.txt")):
        chapter = path.parent
        rows = (line.partition(" ")[::2] for line in read_lines(path, report))
        files = {file.stem: file for file in chapter.glob("*.flac")}
        for _, sound, text in pairs(path, by_id(path, rows, report), files, report):
            yield Utterance(sound, text, chapter.parent.name, chapter.parents[1].name)
