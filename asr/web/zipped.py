"""Transcripts of several recordings as one zip file."""

import io
import zipfile
from collections.abc import Iterable
from pathlib import PurePosixPath

from asr.transcript import Transcript


def zipped(transcripts: Iterable[tuple[str, Transcript]], format: str) -> bytes:
    """A zip file with a file of that format for each (name of the recording, transcript).

    Recordings of the same name get -2, -3 and so on. Raises ValueError for an unknown format.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        taken: set[str] = set()
        for name, transcript in transcripts:
            # Without folders: whoever unpacks it must not write elsewhere.
            stem = PurePosixPath(name.replace("\\", "/").rpartition("/")[2]).stem.lstrip(".") or "recording"
            number, member = 1, f"{stem}.{format}"
            while member.lower() in taken:
                number += 1
                member = f"{stem}-{number}.{format}"
            taken.add(member.lower())
            archive.writestr(member, transcript.render(format))
    return file.getvalue()
