"""Long recordings with NIST's stm files, as TED-LIUM has them (Hernandez et al. 2018). https://www.openslr.org/51"""

import re
from collections.abc import Iterator
from pathlib import Path

from training.corpora.corpus import Report, Utterance, sounds
from training.manifest import ManifestError
from training.scoring.transcripts import read_references

LAYOUT = "SET/stm/NAME.stm and SET/sph/NAME.sph, or .stm files beside the sound"
LICENCE = "that of the recordings (TED-LIUM: CC BY-NC-ND 3.0)"
_MARKS = re.compile(r"<[^>]*>|\[[^]]*\]|\{[^}]*\}|\(\d+\)")  # noises, unknown words, pronunciations


def utterances(source: Path, report: Report) -> Iterator[Utterance]:
    """The segments that are to be scored and have no unknown words, without marks of noise."""
    sound_of = {path.stem: path for path in sounds(source)}
    for path in sorted(source.rglob("*.stm")):
        folder = path.parent.parent if path.parent.name == "stm" else path.parent
        try:
            references = read_references(path)
        except ManifestError as error:
            report(str(error))
            continue
        for one in references:
            name = one.recording.split()[0]
            if name not in sound_of:
                report(f"{path}: no sound of {name}")
            elif not one.ignored and "<unk>" not in one.text:
                text = re.sub(r" '(?=\w)", "'", _MARKS.sub(" ", one.text))
                named = folder.name if folder != source else ""
                place = one.start_seconds, one.end_seconds
                yield Utterance(sound_of[name], " ".join(text.split()), one.speaker, named, *place)
