"""Common Voice (Ardila et al. 2020): sentences read into people's own microphones. https://commonvoice.mozilla.org"""

from collections.abc import Iterator
from pathlib import Path

from training.corpora.corpus import Report, Utterance
from training.manifest import ManifestError, read_rows

LAYOUT = "train.tsv, dev.tsv and test.tsv beside clips/*.mp3"
LICENCE = "CC0"


def utterances(source: Path, report: Report) -> Iterator[Utterance]:
    """The clips of the validated sets; texts as they are written."""
    for path in sorted(path for name in ("train", "dev", "test") for path in source.rglob(f"{name}.tsv")):
        try:
            for number, row in read_rows(path, ("client_id", "path", "sentence")):
                clip = path.parent / "clips" / row.get("path", "")
                if not row.get("sentence"):
                    report(f"{path}:{number}: no sentence")
                elif not clip.is_file():
                    report(f"{path}:{number}: no sound {clip}")
                else:
                    speaker = row.get("client_id", "")[:16]
                    yield Utterance(clip, row["sentence"], speaker, path.stem, is_written=True)
        except ManifestError as error:
            report(str(error))
