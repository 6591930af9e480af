"""The tab "Transcribe": record or drop a file, read the text, hear any word again, save it."""

import itertools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from asr.audio import SAMPLE_RATE, AudioError, load_audio
from asr.recognizer import Recognizer
from asr.transcript import Transcript
from asr.web import markup
from asr.web.hearing import Hearing
from asr.web.picture import picture_html
from asr.web.visits import Visit, Visits

SCRIPT = Path(__file__).with_name("transcribe.js")
SAVED_FORMATS = ("txt", "srt", "vtt", "json")
DECODERS = [("With the language model", "beam"), ("By the sound alone (faster)", "greedy")]
REFRESH_SECONDS = 0.4  # a long recording gives several utterances a second, more often than eyes follow
PICTURE_SECONDS = 40.0  # the longest stretch drawn at once
PICTURE_MARGIN_SECONDS = 0.2  # drawn around a segment, so that one sees where it begins
RECOGNIZER = "recognizer"  # events with this id wait for each other; side by side each would be slower
PICTURE = "picture"  # drawn one by one, so that the last one asked for is the one that stays
FAULT = "Something went wrong here. Try again, or tell whoever runs this page: its log has the details."

Update = dict[Any, Any]  # component → its new value, as Gradio takes it


def transcribe_tab(recognizers: Mapping[str, Recognizer], visits: Visits) -> None:
    """Adds the tab to the Blocks or Tab that is open, with the first of `recognizers` chosen."""
    names = list(recognizers)
    language_model = recognizers[names[0]].bundle.has_language_model
    choices = len(names) > 1 or language_model

    with gr.Column(elem_id="transcribe"):
        sound = gr.Audio(
            sources=["upload", "microphone"],
            type="filepath",
            label="Recording",
            show_label=False,
            buttons=[],
            editable=False,
            waveform_options=gr.WaveformOptions(
                waveform_color="#a8a29e", waveform_progress_color="#0d9488", sample_rate=SAMPLE_RATE
            ),
            elem_id="sound",
        )
        with gr.Row(elem_classes="options", visible=choices):
            model = gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1)
            decoder = gr.Dropdown(
                DECODERS,
                value="beam" if language_model else "greedy",
                label="Decode",
                visible=language_model,
            )
            hotwords = gr.Textbox(
                label="Names and terms to expect",
                value="",
                placeholder="separated by commas",
                visible=language_model,
            )
        with gr.Row(elem_classes="actions"):
            status = gr.HTML(elem_id="status", apply_default_css=False)
            again = gr.Button("Transcribe again", visible=False, size="sm", min_width=150, scale=0)
            stop = gr.Button("Stop", visible=False, size="sm", min_width=90, scale=0)
        text = gr.HTML(
            elem_id="text",
            apply_default_css=False,
            js_on_load=SCRIPT.read_text(encoding="utf-8"),
            files={},  # name → content of what can be saved; the script reads it
        )
        picture = gr.HTML(elem_id="picture", apply_default_css=False)

    # gr.update, for a component made here would be one more on the page.
    at_work = {again: gr.update(visible=False), stop: gr.update(visible=True)}
    at_rest = {again: gr.update(visible=True), stop: gr.update(visible=False)}
    done = {**at_rest, again: gr.update(visible=choices)}  # without a choice it would only say the same again
    empty = {sound: gr.update(subtitles=None), status: "", text: "", picture: ""}
    untouched = {**empty, again: gr.update(visible=False), stop: gr.update(visible=False)}
    untouched = {**empty, again: gr.update(visible=False), stop: gr.update(visible=False)}

    def begin(path: str, request: gr.Request) -> Update:
        """Answers at once, while the recording may have to wait for others."""
        visits.begin(request.session_hash, path)
        return {**empty, **at_work, status: markup.WAITING}

    def hear(model: str, decoder: str, hotwords: str, request: gr.Request) -> Iterator[Update]:
        """Fills the page while the recording is heard, utterance by utterance.

        It ends by itself when the visit is over. (If Gradio cancelled it, an update that is on its way to the
        page could arrive after what Stop or Clear showed.)
        """
        visit = visits.get(request.session_hash)
        if visit is None or visit.over:  # while it waited
            return
        visit.started = True
        yield {**empty, **at_work, status: markup.progress_html(0.0, None, 0)}
        started = shown_at = time.monotonic()
        paragraphs, words = markup.TEXT_START, 0
        try:
            hearing = Hearing(recognizers[model], visit.path, decoder, hotwords)
            for index, segment in enumerate(hearing):
                if visit.over:
                    break
                paragraphs += markup.segment_html(segment, index)
                words += len(segment.words)
                if time.monotonic() - shown_at >= REFRESH_SECONDS:
                    shown_at = time.monotonic()
                    progress = markup.progress_html(hearing.done_seconds, hearing.total_seconds, words)
                    yield {status: progress, text: paragraphs}
        except AudioError as error:
            yield {**empty, **at_rest, status: markup.error_html(_without_folder(error, visit.path))}
            return
        except Exception:  # a fault of this program
            yield {**empty, **at_rest, status: markup.error_html(FAULT)}
            raise
        visit.transcript = hearing.transcript
        now = visits.get(request.session_hash)
        if now is None:
            yield untouched
        elif now is visit and visit.over:
            yield {**at_rest, **result(visit, markup.stopped_html(visit.transcript))}
        elif now is visit:
            summary = markup.summary_html(visit.transcript, time.monotonic() - started)
            yield {**done, **result(visit, summary)}

    def stopped(request: gr.Request) -> Update:
        """What was heard until then stays and can be saved."""
        visit = visits.get(request.session_hash)
        if visit is None:
            return untouched
        visit.over = True
        return {stop: gr.update(visible=False)} if visit.started else {**empty, **at_rest}

    def result(visit: Visit, summary: str) -> Update:
        transcript = visit.transcript
        warnings = markup.warnings_html(transcript.warnings)
        if not transcript.words:
            return {status: markup.silence_html(transcript.duration) + warnings, text: ""}
        stem = Path(visit.path).stem
        files = {f"{stem}.{format}": transcript.render(format) for format in SAVED_FORMATS}
        paragraphs = "".join(map(markup.segment_html, transcript.segments, itertools.count()))
        return {
            sound: gr.update(subtitles=_captions(transcript)),
            status: summary + warnings + markup.legend_html(transcript.words),
            text: gr.update(value=markup.TEXT_START + paragraphs + markup.saving_html(files), files=files),
        }

    def cleared(request: gr.Request) -> Update:
        visits.end(request.session_hash)
        return untouched

    def draw_first(request: gr.Request) -> str:
        visit = visits.get(request.session_hash)
        if visit is None or visit.transcript is None or not visit.transcript.segments:
            return ""
        return _picture_of(visit, 0)

    def draw(event: gr.EventData, request: gr.Request) -> str:
        """The segment of which a word was clicked."""
        visit = visits.get(request.session_hash)
        return "" if visit is None or visit.transcript is None else _picture_of(visit, event.segment)

    def offer_options(model: str) -> Update:
        can_choose = recognizers[model].bundle.has_language_model
        return {
            decoder: gr.update(value="beam" if can_choose else "greedy", visible=can_choose),
            hotwords: gr.update(value="", visible=can_choose),
        }

    def offer_hotwords(decoder: str) -> Update:
        """Without the language model they could do nothing, so they are not asked for."""
        return {
            hotwords: gr.update(visible=True) if decoder == "beam" else gr.update(value="", visible=False)
        }

    def transcribe(sound: str | None, model: str, decoder: str, hotwords: str) -> dict[str, Any]:
        """The text of a recording, with its segments and words, in the form of OpenAI's verbose_json.

        sound: an audio file. model: one of the page's. decoder: "beam" (if the model has a language model) or
        "greedy". hotwords: names and terms to expect, separated by commas; only for "beam".
        """
        if sound is None:
            raise gr.Error("there is no recording; give one as sound", print_exception=False)
        try:
            hearing = Hearing(recognizers[model], sound, decoder, hotwords)
            for _ in hearing:
                pass
        except ValueError as error:
            raise gr.Error(_without_folder(error, sound), print_exception=False) from None
        return hearing.transcript.to_dict()

    private = {"api_visibility": "private", "show_progress": "hidden"}
    options = [model, decoder, hotwords]
    page = [sound, again, stop, status, text, picture]

    begun = gr.on(
        [sound.upload, sound.stop_recording, again.click], begin, sound, page, queue=False, **private
    )
    running = begun.then(
        hear,
        options,
        page,
        concurrency_id=RECOGNIZER,
        concurrency_limit=1,
        trigger_mode="multiple",
        **private,
    )
    running.success(draw_first, None, picture, concurrency_id=PICTURE, **private)
    text.click(draw, None, picture, concurrency_id=PICTURE, **private)
    stop.click(stopped, None, page, queue=False, **private)
    sound.clear(cleared, None, page, queue=False, **private)
    model.change(offer_options, model, [decoder, hotwords], queue=False, **private)
    decoder.change(offer_hotwords, decoder, hotwords, queue=False, **private)

    # The API's endpoint needs a trigger and an output; neither is on the page.
    gr.Button(visible=False).click(
        transcribe,
        [sound, *options],
        gr.JSON(label="Transcript", visible=False),
        api_name="transcribe",
        concurrency_id=RECOGNIZER,
        concurrency_limit=1,
    )


def _captions(transcript: Transcript) -> list[dict[str, Any]]:
    return [
        {"text": caption, "timestamp": [start / 1000, end / 1000]}
        for start, end, caption in transcript.cues()
    ]


def _picture_of(visit: Visit, index: int) -> str:
    segment = visit.transcript.segments[index]
    start = max(0.0, segment.start - PICTURE_MARGIN_SECONDS)
    duration = min(segment.end + PICTURE_MARGIN_SECONDS - start, PICTURE_SECONDS)
    words = [word for word in segment.words if word.end <= start + duration]
    try:
        visit.keep_file()
        picture = picture_html(load_audio(visit.path, start, duration, warn=_told), start, words)
    except FileNotFoundError:
        picture = markup.error_html("The recording was deleted after an hour; drop it again to draw this.")
    return picture + markup.readings_html(segment)


def _told(warning: str) -> None:
    """Warnings are shown with the transcript already."""


def _without_folder(error: Exception, path: str) -> str:
    """The person knows the name of the file, not where the server keeps it."""
    return str(error).replace(path, Path(path).name)
