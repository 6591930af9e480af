"""What the page's script asks the server for: times of corrected words, pictures, and files."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import fastapi

from asr.audio import load_audio
from asr.recognizer import Recognizer
from asr.transcript import Segment
from asr.web.edited import from_page, segment_from_page, word_times
from asr.web.markup import html
from asr.web.picture import picture_html
from asr.web.sessions import Session, Sessions
from asr.web.zipped import zipped

PICTURE_SECONDS = 40.0  # the longest picture
PICTURE_MARGIN_SECONDS = 0.2  # shown before and after a segment

Asked = dict[str, Any]  # what the script sends


def server_functions(recognizers: Mapping[str, Recognizer], sessions: Sessions) -> list[Callable]:
    """The functions; the script calls them by their names."""

    def find_word_times(asked: Asked) -> Sequence[tuple[float, float]] | None:
        """Seconds of each word of a corrected segment; None if they cannot be found."""

        def corrected(data: Asked) -> tuple[str, str, Segment]:
            return str(data["page"]), str(data["model"]), segment_from_page(data["segment"])

        page, model, segment = _sent(corrected, asked)
        session = sessions.get(page)
        if session is None or model not in recognizers:
            return None
        return word_times(recognizers[model], session.path, segment)

    def draw(asked: Asked) -> str:
        """The picture of a segment."""

        def wanted(data: Asked) -> tuple[str, Segment, float]:
            return str(data["page"]), segment_from_page(data["segment"]), float(data["below"])

        page, segment, below = _sent(wanted, asked)
        return _picture_of(sessions.get(page), segment, below)

    def render(asked: Asked) -> str:
        """The transcript as a file of a format, in base64."""
        content = _sent(lambda data: from_page(data["transcript"]).render(data["format"]), asked)
        return base64.b64encode(content.encode() if isinstance(content, str) else content).decode()

    def zip_texts(asked: Asked) -> str:
        """The transcripts of several recordings as files of a format in a zip file, in base64."""

        def zipped_documents(data: Asked) -> bytes:
            named = [(str(one["name"]), from_page(one["transcript"])) for one in data["documents"]]
            return zipped(named, data["format"])

        return base64.b64encode(_sent(zipped_documents, asked)).decode()

    return [find_word_times, draw, render, zip_texts]


def _picture_of(session: Session | None, segment: Segment, doubtful_below: float) -> str:
    """The picture of a segment, and its alternatives; "" for a page without a recording."""
    if session is None:
        return ""
    start = max(0.0, segment.start - PICTURE_MARGIN_SECONDS)
    duration = min(segment.end + PICTURE_MARGIN_SECONDS - start, PICTURE_SECONDS)
    words = [word for word in segment.words if word.end <= start + duration]
    try:
        session.keep_file()
        samples = load_audio(session.path, start, duration, warn=lambda warning: None)  # shown before
        picture = picture_html(samples, start, words, doubtful_below)
    except FileNotFoundError:
        picture = html.error("The recording was deleted after an hour. Upload it again to see this picture.")
    return picture + html.alternatives(segment)


def _sent(read: Callable[[Any], Any], data: Any) -> Any:
    """What was read from the browser's data; what is not of the page is its fault, not the server's."""
    try:
        return read(data)
    except (KeyError, TypeError, ValueError) as error:
        raise fastapi.HTTPException(422, f"cannot be read: {error!r}") from None
