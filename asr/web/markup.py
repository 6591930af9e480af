"""HTML that the server makes: pictures, alternatives, status lines.

    html.progress(10.4, 62.0, 35)

`html` has the macros of markup.html.j2; they escape what they are given and return strings of HTML.
"""

from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path

import jinja2

from asr.transcript import clock


def percent(confidence: float) -> str:
    """In whole percent, at most "99 %": no recogniser is certain."""
    return f"{min(round(100 * confidence), 99)} %"


def _differences(text: str, other: str) -> Iterator[tuple[bool, str]]:
    """The words of the other text in groups, each with whether it differs from the text."""
    words, others = text.split(), other.split()
    for kind, _, _, start, end in SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
        if start < end:
            yield kind != "equal", " ".join(others[start:end])


_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    undefined=jinja2.StrictUndefined,
)
_environment.filters.update(clock=clock, percent=percent, differences=_differences)
html = _environment.get_template("markup.html.j2").module
