"""Transcript → HTML: words with times and confidence, legend, status lines."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape

from asr.transcript import Segment, Transcript, Word


@dataclass(frozen=True)
class Band:
    """A range of confidence, from `minimum` up to the next band's, and how its words look."""

    css_class: str
    minimum: float
    meaning: str


# Each band has its own underline besides its colour, for readers who cannot tell the colours apart.
BANDS = (
    Band("sure", 0.9, "sure"),
    Band("unsure", 0.6, "less sure"),
    Band("guess", 0.0, "a guess"),
)


def band_of(confidence: float) -> Band:
    """The band of a confidence in [0, 1]."""
    return next(band for band in BANDS if confidence >= band.minimum)


def clock(seconds: float) -> str:
    """62.4 → "1:02", 3723.0 → "1:02:03"."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def percent(confidence: float) -> str:
    """In whole percent, at most "99 %": no recogniser is certain."""
    return f"{min(round(100 * confidence), 99)} %"


# Left open: the browser closes it, and Gradio then sends only what was appended.
TEXT_START = (
    '<div class="text" role="group" tabindex="0" aria-label="Transcript. '
    'Arrow keys move from word to word, Enter plays from there.">'
)


def segment_html(segment: Segment, index: int) -> str:
    """A paragraph; its words carry their times in seconds for the page's script."""
    return (
        f'<p class="segment" data-segment="{index}">'
        f'<time data-start="{segment.start:.2f}" title="Play from here">{clock(segment.start)}</time>'
        f"<span>{f'{segment.channel}: ' if segment.channel else ''}"
        f"{' '.join(map(_word_html, segment.words))}</span></p>"
    )


def alternatives_html(segment: Segment) -> str:
    """The alternatives of a segment, with the words that differ from its text marked; "" if it has none."""
    if not segment.alternatives:
        return ""
    items = "".join(f"<li>{_differing_html(segment.text, text)}</li>" for text in segment.alternatives)
    return f'<div class="alternatives"><p>Alternatives</p><ul>{items}</ul></div>'


def _differing_html(text: str, other: str) -> str:
    words, others = text.split(), other.split()
    parts = []
    for kind, _, _, start, end in SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
        if start < end:
            part = escape(" ".join(others[start:end]))
            parts.append(part if kind == "equal" else f"<mark>{part}</mark>")
    return " ".join(parts)


def saving_html(names: Iterable[str]) -> str:
    """Closes the text; a button to copy it, and one to save each file of `names`."""
    buttons = "".join(
        f'<button type="button" data-save="{escape(name)}" aria-label="Save {escape(name)}">'
        f"{escape(name.rpartition('.')[2].upper())}</button>"
        for name in names
    )
    return (
        '</div><div class="saving"><button type="button" data-copy>Copy text</button>'
        f"<span>Save as</span>{buttons}</div>"
    )


WAITING = '<div class="progress" role="status"><progress></progress><span>Waiting in the queue</span></div>'


def legend_html(words: Sequence[Word]) -> str:
    """What the marks mean, and how many words have each."""
    counts = Counter(band_of(word.confidence) for word in words)
    uppers = (None, *(band.minimum for band in BANDS))
    entries = "".join(
        f'<li><span class="word {band.css_class}">{band.meaning}</span> '
        f"({f'{band.minimum:.0%} or more' if upper is None else f'below {upper:.0%}'}): {counts[band]}</li>"
        for band, upper in zip(BANDS, uppers, strict=False)
    )
    return (
        '<div class="legend"><span>How likely each word is correct, as estimated by the model. '
        "Click a word to hear it.</span>"
        f"<ul>{entries}</ul></div>"
    )


def silence_html(duration_seconds: float) -> str:
    """Shown instead of a transcript without words."""
    return (
        '<p class="notice" role="status"><strong>No speech found</strong> '
        f"in {duration_seconds:.1f} s of audio. If somebody spoke, check that the microphone was on "
        "and close enough.</p>"
    )


def warnings_html(warnings: Iterable[str]) -> str:
    """Warnings about damaged or missing parts of a recording, as on the command line."""
    return "".join(f'<p class="notice" role="status">{escape(warning)}</p>' for warning in warnings)


def error_html(message: str) -> str:
    """An error message, read out at once by screen readers."""
    return f'<p class="notice error" role="alert">{escape(message)}</p>'


def progress_html(done_seconds: float, total_seconds: float | None, words: int) -> str:
    """Progress through a recording; an indeterminate bar if its length is unknown."""
    if total_seconds is None:
        bar, of = "<progress></progress>", ""
    else:
        done_seconds = min(done_seconds, total_seconds)
        bar = f'<progress max="{total_seconds:.2f}" value="{done_seconds:.2f}"></progress>'
        of = f" of {clock(total_seconds)}"
    return f'<div class="progress">{bar}<span>{clock(done_seconds)}{of} done · {_count(words)}</span></div>'


def summary_html(transcript: Transcript, elapsed_seconds: float) -> str:
    """One line: length, words, model, time taken."""
    words = _count(len(transcript.words))
    return (
        f'<p class="summary" role="status">{transcript.duration:.1f} s of audio, {words}, '
        f"transcribed by {escape(transcript.model)} in {elapsed_seconds:.2f} s</p>"
    )


def _count(words: int) -> str:
    return f"{words} word" if words == 1 else f"{words} words"


def _word_html(word: Word) -> str:
    band = band_of(word.confidence)
    title = f"{word.start:.2f}–{word.end:.2f} s · {band.meaning}, {percent(word.confidence)}"
    return (
        f'<span class="word {band.css_class}" data-start="{word.start:.2f}" data-end="{word.end:.2f}" '
        f'title="{title}">{escape(word.text)}</span>'
    )


def stopped_html(transcript: Transcript) -> str:
    """Shown after Stop was pressed."""
    return (
        f'<p class="summary" role="status">Stopped after {clock(transcript.duration)}; '
        f"{_count(len(transcript.words))} so far</p>"
    )
