"""A transcript as a document for word processors."""

import io

from asr.transcript import Transcript, clock, joined


def docx(transcript: Transcript) -> bytes:
    """Paragraphs, each after its time. Raises ValueError where python-docx is missing."""
    try:
        from docx import Document
    except ModuleNotFoundError:
        raise ValueError("docx needs a package that is not installed: pip install python-docx") from None
    document = Document()
    document.core_properties.author = ""  # else python-docx
    document.core_properties.comments = ""
    for paragraph in transcript.paragraphs():
        written = document.add_paragraph()
        written.add_run(f"{clock(paragraph[0].start)}\t").bold = True
        written.add_run(joined(paragraph))
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()
