"""The page's tab "Evaluate": recordings and what is said in them, to the report of `hark evaluate`."""

import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from anyio import to_thread
from gradio_client.utils import strip_invalid_filename_characters

from asr.audio import SAMPLE_RATE, AudioError, load_audio
from asr.recognizer import Recognizer
from asr.transcript import Word
from asr.turns import Turns
from asr.web.markup import html
from asr.web.recognize import ESTIMATE_SECONDS, REFRESH_SECONDS, decoder_choices
from asr.web.sessions import Session, Sessions, evaluated
from asr.web.transcribe import INTERNAL_ERROR
from training.environment import environment
from training.scoring.normalizers import DEFAULT, DESCRIPTIONS, texts_lost
from training.scoring.recognisers import RecogniserRun, joined, reader
from training.scoring.report import percent, report_page
from training.scoring.results import score
from training.scoring.transcripts import Output, Reference
from training.scoring.uploads import LONGEST_TEXT, TEXTS, read_text, read_uploads

TEMPLATES = Path(__file__).parent / "scoring" / "templates"
LONGEST_SECONDS = 2 * 3600  # of a recording, which is held in memory
AT_ONCE = 4  # evaluations that take turns; others wait

HINT = """<p class="hint">Word error rates of one or two models on a recording, from what is really said in
it; or on many, from a manifest (.jsonl) and its recordings, as files or in a zip file. All of it stays on the
machine that serves this page.</p>"""

Update = dict[Any, Any]  # component → new value


class System(NamedTuple):
    """What recognises, and by which decoder."""

    recognizer: Recognizer
    decoder: str


class Evaluation:
    """References that some systems recognise, and how far that is.

    Args:
      references: all with sound.
      systems: by the names that they have in the report.
    """

    def __init__(self, references: Sequence[Reference], systems: Mapping[str, System]):
        self.references = list(references)
        self.runs = {name: RecogniserRun() for name in systems}
        self.words = 0
        self.done_seconds = 0.0  # of sound, of all systems together
        self._systems = systems
        self._started = time.monotonic()

    async def recognise(self, turns: Turns, session: Session) -> AsyncIterator[None]:
        """Recognises all in turns with others, or until the session is cancelled; yields after each part."""
        readers = {name: await to_thread.run_sync(reader, *system) for name, system in self._systems.items()}
        for number, one in enumerate(self.references):
            session.keep_file()
            try:
                samples = await to_thread.run_sync(_samples, one)
            except AudioError as error:
                why = str(error).replace(str(one.audio), one.id)
                for run in self.runs.values():
                    run.unreadable[one.id] = why
                continue
            seconds = len(samples) / SAMPLE_RATE
            one = self.references[number] = replace(one, duration_seconds=one.duration_seconds or seconds)
            for name, read in readers.items():
                run, before, parts = self.runs[name], self.done_seconds, []
                async with aclosing(turns.segments(_timed(read(samples), run))) as found:
                    async for words in found:
                        if session.cancelled:
                            return
                        parts.append(words)
                        self.words += len(words)
                        if words:
                            self.done_seconds = before + min(words[-1].end, seconds)
                        yield
                self.done_seconds = before + seconds
                run.recognised[one.id] = joined(parts)
                run.speech_seconds += seconds

    def progress(self, others: int) -> str:
        """HTML; `others` are recordings that it takes turns with."""
        total = sum(one.duration_seconds or 0.0 for one in self.references) * len(self.runs)
        spent = time.monotonic() - self._started
        known = spent > ESTIMATE_SECONDS and 0 < self.done_seconds <= total
        left = spent * (total - self.done_seconds) / self.done_seconds if known else None
        return html.progress(self.done_seconds, total or None, self.words, left, others)

    def report(self, normalizers: Sequence[str]) -> tuple[str, str]:
        """The report, and its first figures in a line. Raises ValueError where nothing can be scored."""
        not_scored, _ = texts_lost(self.references, normalizers)
        for run in self.runs.values():
            not_scored |= run.unreadable
        if len(not_scored) == len(self.references):
            raise ValueError(next(iter(not_scored.values())))
        outputs = [Output(name, run.recognised) for name, run in self.runs.items()]
        scores = score(self.references, outputs, normalizers, not_scored=not_scored)
        first = scores.document["normalizers"][0]
        if not first["words"]:
            raise ValueError(f"no reference has a word that the normaliser {first['name']} leaves")
        measured = {
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "speed": [{"system": name} | _speed(run) for name, run in self.runs.items()],
        }
        rates = {
            row["system"]: f"{row['system']}: WER {percent(row['wer']['value'])} %"
            for row in scores.document["scores"]
            if row["normalizer"] == first["name"]
        }
        summary = f"{'; '.join(rates.values())} of {first['words']} words (normaliser {first['name']})."
        return report_page(scores, environment(["hark", "serve"]), measured), summary


def _samples(one: Reference) -> np.ndarray:
    """Sound of a reference, float32 [samples]. Raises AudioError, also for what is too long."""
    end_seconds = np.inf if one.end_seconds is None else one.end_seconds
    seconds = min(end_seconds - one.start_seconds, LONGEST_SECONDS + 1)
    samples = load_audio(one.audio, one.start_seconds, seconds, warn=lambda warning: None)
    if len(samples) > LONGEST_SECONDS * SAMPLE_RATE:
        raise AudioError(f"{one.audio}: is longer than {LONGEST_SECONDS // 3600} hours; cut it into parts")
    return samples


def _speed(run: RecogniserRun) -> dict[str, float]:
    """What can be told of a recogniser that was there before."""
    return {name: run.speed()[name] for name in ("speech_seconds", "real_time_factor")}


def _timed(parts: Iterator[Sequence[Word]], run: RecogniserRun) -> Iterator[Sequence[Word]]:
    """The same parts; adds the time that each takes to the run, without that between them."""
    with closing(parts):
        while True:
            began = time.perf_counter()
            words = next(parts, None)
            run.compute_seconds += time.perf_counter() - began
            if words is None:
                return
            yield words


def evaluate_tab(recognizers: Mapping[str, Recognizer], turns: Turns, sessions: Sessions) -> None:
    """Adds the tab to the current Blocks or Tab; the first of `recognizers` is the default."""
    systems, choices = {}, []
    for model, recognizer in recognizers.items():
        for label, decoder in decoder_choices([recognizer.bundle]):
            systems[f"{model} {decoder}"] = System(recognizer, decoder)
            choices.append((f"{model}: {label}", f"{model} {decoder}"))

    with gr.Column(elem_id="evaluate"):
        gr.HTML(HINT, apply_default_css=False)
        files = gr.File(file_count="multiple", label="Recording, or manifest and recordings", height=150)
        with gr.Row():
            text = gr.Textbox(
                label="Reference: what is said in the recording",
                placeholder="Paste the text here. A manifest has its own.",
                lines=4,
                max_lines=12,
                max_length=LONGEST_TEXT,
                scale=3,
                min_width=300,
            )
            file = gr.File(
                label="or its .txt, .srt or .vtt", file_types=list(TEXTS), height=150, min_width=200
            )
        with gr.Row(elem_classes="options"):
            first = gr.Dropdown(choices, value=choices[0][1], label="Recognise with", min_width=300)
            second = gr.Dropdown([("nothing", ""), *choices], value="", label="Compare with", min_width=300)
            normalizers = gr.Dropdown(
                list(DESCRIPTIONS), value=list(DEFAULT), multiselect=True, label="Normalisers", min_width=300
            )
        with gr.Row(elem_classes="actions"):
            status = gr.HTML(elem_classes="status", apply_default_css=False)
            start = gr.Button("Evaluate", size="sm", min_width=150, scale=0)
            stop = gr.Button("Stop", visible=False, size="sm", min_width=90, scale=0)
        report = gr.HTML(
            html_template=(TEMPLATES / "tab.html").read_text(encoding="utf-8"),
            js_on_load=(TEMPLATES / "tab.js").read_text(encoding="utf-8"),
            apply_default_css=False,
            report="",
        )

    busy = {start: gr.update(visible=False), stop: gr.update(visible=True)}
    idle = {start: gr.update(visible=True), stop: gr.update(visible=False)}

    def read(path: str, request: gr.Request) -> Update:
        """Text that goes into the box; its file is deleted."""
        name = f"{evaluated(request.session_hash)} text"
        sessions.begin(name, path)
        try:
            return {text: read_text(path), status: ""}
        except ValueError as error:
            return {status: html.error(str(error))}
        finally:
            sessions.end(name)

    def hold(paths: Sequence[str] | None, request: gr.Request) -> Update:
        """Keeps files until they are taken away; a text among them goes into the box."""
        texts = [path for path in paths or () if Path(path).suffix.lower() in TEXTS]
        kept = [path for path in paths or () if path not in texts]
        sessions.begin(evaluated(request.session_hash), *kept)
        news: Update = {status: ""}
        for path in texts:
            news |= {files: kept or None, **read(path, request)}
        return news

    def begin(paths: Sequence[str] | None, request: gr.Request) -> Update:
        """Updates the page at once; there may be a queue."""
        sessions.begin(evaluated(request.session_hash), *(paths or ()))
        return {**busy, status: html.waiting(), report: gr.update(report="")}

    async def evaluate(
        paths: Sequence[str] | None,
        said: str,
        first: str,
        second: str,
        normalizers: Sequence[str],
        request: gr.Request,
    ) -> AsyncIterator[Update]:
        session = sessions.get(evaluated(request.session_hash))
        if session is None or session.cancelled:  # while it was queued
            return
        session.started = True
        yield {**busy, status: html.progress(0.0, None, 0, None, 0)}
        try:
            if not normalizers:
                raise ValueError("no normaliser: choose one, such as english")
            if first == second:
                raise ValueError(f"{first} is compared with itself; choose two")
            chosen = {name: systems[name] for name in (first, second) if name}
            with tempfile.TemporaryDirectory(dir=os.environ.get("GRADIO_TEMP_DIR")) as folder:
                uploaded = paths or (), said, Path(folder), strip_invalid_filename_characters
                references = await to_thread.run_sync(read_uploads, *uploaded)
                evaluation = Evaluation(references, chosen)
                shown_at = 0.0
                async with aclosing(evaluation.recognise(turns, session)) as parts:
                    async for _ in parts:
                        if time.monotonic() - shown_at >= REFRESH_SECONDS:
                            shown_at = time.monotonic()
                            yield {status: evaluation.progress(turns.recordings - 1)}
                if not session.cancelled:
                    page, summary = await to_thread.run_sync(evaluation.report, normalizers)
        except FileNotFoundError:
            yield {**idle, status: html.error("The files were deleted after an hour. Upload them again.")}
            return
        except ValueError as error:
            yield {**idle, status: html.error(str(error))}
            return
        except Exception:  # a bug
            yield {**idle, status: html.error(INTERNAL_ERROR)}
            raise
        if session.cancelled:  # by Stop, or since there are other files
            yield {**idle, status: ""}
            return
        news = {**idle, report: gr.update(report=page)}
        if len(references) == 1:
            yield {**news, status: html.warnings([summary])}
            return
        sessions.end(evaluated(request.session_hash))
        yield {**news, status: html.warnings([f"{summary} The uploaded files are deleted."]), files: None}

    def stopped(request: gr.Request) -> Update:
        session = sessions.get(evaluated(request.session_hash))
        if session is None:
            return {**idle, status: ""}
        session.cancelled = True
        return {stop: gr.update(visible=False)} if session.started else {**idle, status: ""}

    private = {"api_visibility": "private", "show_progress": "hidden"}
    page = [files, text, status, start, stop, report]
    gr.on([files.upload, files.delete, files.clear], hold, files, page, queue=False, **private)
    begun = start.click(begin, files, page, queue=False, **private)
    file.upload(read, file, page, queue=False, **private).then(
        lambda: None, None, file, queue=False, **private
    )
    options = [files, text, first, second, normalizers]
    at_once = {"concurrency_id": "evaluate", "concurrency_limit": AT_ONCE}
    begun.then(evaluate, options, page, trigger_mode="multiple", **at_once, **private)
    stop.click(stopped, None, page, queue=False, **private)
