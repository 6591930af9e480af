"""Transcript → HTML: words with times and confidence, the legend, and the lines around them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from html import escape

from asr.transcript import Segment, Transcript, Word


@dataclass(frozen=True)
class Band:
    """Words whose confidence lies in [minimum, the next band's minimum) look alike."""

    css_class: str
    minimum: float
    meaning: str


# Each band has its own underline besides its colour, so that no reader depends on hue.
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
    """Never "100 %": no recogniser is that sure."""
    return f"{min(round(100 * confidence), 99)} %"


# Left open on purpose: the browser closes it, and of text that only grows Gradio sends what is new.
TEXT_START = (
    '<div class="text" role="group" tabindex="0" aria-label="Transcript. '
    'Arrow keys go from word to word, Enter plays from there.">'
)


def segment_html(segment: Segment, index: int) -> str:
    """A paragraph; it and its words carry their times in seconds for the page's script."""
    return (
        f'<p class="segment" data-segment="{index}">'
        f'<time data-start="{segment.start:.2f}" title="Play from here">{clock(segment.start)}</time>'
        f"<span>{f'{segment.channel}: ' if segment.channel else ''}"
        f"{' '.join(map(_word_html, segment.words))}</span></p>"
    )


def readings_html(segment: Segment) -> str:
    """What else a segment may have been, with the words that differ from its text marked; "" if nothing."""
    if not segment.alternatives:
        return ""
    items = "".join(f"<li>{_differing_html(segment.text, text)}</li>" for text in segment.alternatives)
    return f'<div class="readings"><p>It may also have been</p><ul>{items}</ul></div>'


def _differing_html(text: str, other: str) -> str:
    words, others = text.split(), other.split()
    parts = []
    for kind, _, _, start, end in SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
        if start < end:
            part = escape(" ".join(others[start:end]))
            parts.append(part if kind == "equal" else f"<mark>{part}</mark>")
    return " ".join(parts)


def saving_html(names: Iterable[str]) -> str:
    """Ends the text; a button to copy it, and one for each file of `names` that can be saved."""
    buttons = "".join(
        f'<button type="button" data-save="{escape(name)}" aria-label="Save {escape(name)}">'
        f"{escape(name.rpartition('.')[2].upper())}</button>"
        for name in names
    )
    return (
        '</div><div class="saving"><button type="button" data-copy>Copy text</button>'
        f"<span>Save as</span>{buttons}</div>"
    )


WAITING = '<div class="progress" role="status"><progress></progress><span>Waiting for its turn</span></div>'


def legend_html(words: Sequence[Word]) -> str:
    """What the marks mean, and how many words bear each."""
    counts = Counter(band_of(word.confidence) for word in words)
    uppers = (None, *(band.minimum for band in BANDS))
    entries = "".join(
        f'<li><span class="word {band.css_class}">{band.meaning}</span> '
        f"({f'{band.minimum:.0%} and more' if upper is None else f'below {upper:.0%}'}): {counts[band]}</li>"
        for band, upper in zip(BANDS, uppers, strict=False)
    )
    return (
        '<div class="legend"><span>How likely each word is right, as the recogniser judges itself. '
        "Click a word to hear it.</span>"
        f"<ul>{entries}</ul></div>"
    )


def silence_html(duration_seconds: float) -> str:
    """Said instead of a transcript where nobody speaks."""
    return (
        '<p class="notice" role="status"><strong>No speech found</strong> '
        f"in {duration_seconds:.1f} s of sound. If somebody does speak there, check that the microphone "
        "was on and near enough.</p>"
    )


def warnings_html(warnings: Iterable[str]) -> str:
    """What was damaged or left out of a recording, as the command line says it."""
    return "".join(f'<p class="notice" role="status">{escape(warning)}</p>' for warning in warnings)


def error_html(message: str) -> str:
    """One line for what went wrong, read out at once by screen readers."""
    return f'<p class="notice error" role="alert">{escape(message)}</p>'


def progress_html(done_seconds: float, total_seconds: float | None, words: int) -> str:
    """How far a recording is heard; without a known length the bar only moves."""
    if total_seconds is None:
        bar, of = "<progress></progress>", ""
    else:
        done_seconds = min(done_seconds, total_seconds)
        bar = f'<progress max="{total_seconds:.2f}" value="{done_seconds:.2f}"></progress>'
        of = f" of {clock(total_seconds)}"
    return f'<div class="progress">{bar}<span>{clock(done_seconds)}{of} heard · {_count(words)}</span></div>'


def summary_html(transcript: Transcript, elapsed_seconds: float) -> str:
    """One quiet line under the sound: length, words, time taken, model."""
    words = _count(len(transcript.words))
    return (
        f'<p class="summary" role="status">{transcript.duration:.1f} s of sound, {words}, '
        f"written by the model {escape(transcript.model)} in {elapsed_seconds:.2f} s</p>"
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
    """Said when somebody pressed Stop."""
    return (
        f'<p class="summary" role="status">Stopped after {clock(transcript.duration)}; '
        f"{_count(len(transcript.words))} until there</p>"
    )
