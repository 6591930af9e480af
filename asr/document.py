"""Documents for word processors."""

import io
from collections.abc import Iterable


def docx(paragraphs: Iterable[tuple[str, str]]) -> bytes:
    """Office Open XML of (label, text) paragraphs. Raises ValueError where python-docx is missing."""
    try:
        from docx import Document
    except ModuleNotFoundError:
        raise ValueError("docx needs a package that is not installed: pip install python-docx") from None
    document = Document()
    document.core_properties.author = ""  # else python-docx
    document.core_properties.comments = ""
    for label, text in paragraphs:
        paragraph = document.add_paragraph()
        paragraph.add_run(f"{label}\t").bold = True
        paragraph.add_run(text)
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()
