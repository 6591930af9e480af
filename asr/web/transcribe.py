"""The tab "Transcribe": record or upload audio, read the text, play any word, save the transcript."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from asr.audio import SAMPLE_RATE, load_audio
from asr.bundle import Bundle
from asr.recognizer import Recognizer
from asr.web.markup import html
from asr.web.picture import picture_html
from asr.web.recognize import Recognition
from asr.web.sessions import Session, Sessions

SCRIPT = Path(__file__).with_name("transcribe.js")
SAVED_FORMATS = ("txt", "srt", "vtt", "json")
REFRESH_SECONDS = 0.4  # a long recording gives several utterances a second; the page need not show each
PICTURE_SECONDS = 40.0  # the longest picture
PICTURE_MARGIN_SECONDS = 0.2  # shown before and after a segment
RECOGNIZER = "recognizer"  # events with this id run one at a time: in parallel each would be slower
PICTURE = "picture"  # drawn one at a time, so that the last click wins
INTERNAL_ERROR = "Something went wrong. Try again, or ask whoever runs this page to look at its log."

Update = dict[Any, Any]  # component → new value


def transcribe_tab(recognizers: Mapping[str, Recognizer], sessions: Sessions) -> None:
    """Adds the tab to the current Blocks or Tab; the first of `recognizers` is the default."""
    names = list(recognizers)
    decoders = _decoders([recognizer.bundle for recognizer in recognizers.values()])
    best = _decoders([recognizers[names[0]].bundle])[0][1]
    searching = best != "greedy"
    choices = len(names) > 1 or searching

    with gr.Column(elem_id="transcribe"):
        sound = gr.Audio(
            sources=["upload", "microphone"],
            type="filepath",
            label="Recording",
            show_label=False,
            buttons=[],
            editable=False,
            waveform_options=gr.WaveformOptions("#a8a29e", "#0d9488", sample_rate=SAMPLE_RATE),
            elem_id="sound",
        )
        with gr.Row(elem_classes="options", visible=choices):
            model = gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1)
            decoder = gr.Dropdown(
                decoders,
                value=best,
                label="Decoding",
                min_width=200,  # the whole option on a phone
                visible=len(decoders) > 1,
            )
            hotwords = gr.Textbox(
                "",  # a default, so that the API may leave it out
                label="Names and terms to expect",
                placeholder="separated by commas",
                visible=searching,
            )
        with gr.Row(elem_classes="actions"):
            status = gr.HTML(elem_id="status", apply_default_css=False)
            again = gr.Button("Transcribe again", visible=False, size="sm", min_width=150, scale=0)
            stop = gr.Button("Stop", visible=False, size="sm", min_width=90, scale=0)
        text = gr.HTML(
            elem_id="text",
            apply_default_css=False,
            js_on_load=SCRIPT.read_text(encoding="utf-8"),
            files={},  # name → content of the files that can be saved, for the script
        )
        picture = gr.HTML(elem_id="picture", apply_default_css=False)

    # gr.update, since creating a component here would add it to the page.
    busy = {again: gr.update(visible=False), stop: gr.update(visible=True)}
    idle = {again: gr.update(visible=True), stop: gr.update(visible=False)}
    done = {**idle, again: gr.update(visible=choices)}  # without options the result would be the same
    empty = {sound: gr.update(subtitles=None), status: "", text: "", picture: ""}
    initial = {**empty, again: gr.update(visible=False), stop: gr.update(visible=False)}

    def begin(path: str, request: gr.Request) -> Update:
        """Updates the page at once; the recording may have to wait in the queue."""
        sessions.begin(request.session_hash, path)
        return {**empty, **busy, status: html.waiting()}

    def recognize(model: str, decoder: str, hotwords: str, request: gr.Request) -> Iterator[Update]:
        """Shows the text utterance by utterance, until the session is cancelled.

        Gradio's own cancelling is not used: a late update could then overwrite what Stop or Clear showed.
        """
        session = sessions.get(request.session_hash)
        if session is None or session.cancelled:  # while it was queued
            return
        session.started = True
        yield {**empty, **busy, status: html.progress(0.0, None, 0)}
        started = shown_at = time.monotonic()
        paragraphs, words = html.text_start(), 0
        try:
            recognition = Recognition(recognizers[model], session.path, decoder, hotwords)
            for index, segment in enumerate(recognition):
                if session.cancelled:
                    break
                paragraphs += html.segment(segment, index)
                words += len(segment.words)
                if time.monotonic() - shown_at >= REFRESH_SECONDS:
                    shown_at = time.monotonic()
                    progress = html.progress(recognition.done_seconds, recognition.total_seconds, words)
                    yield {status: progress, text: paragraphs}
        except ValueError as error:  # a recording that cannot be read, a decoder that the model lacks
            yield {**empty, **idle, status: html.error(_without_folder(error, session.path))}
            return
        except Exception:  # a bug
            yield {**empty, **idle, status: html.error(INTERNAL_ERROR)}
            raise
        session.transcript = recognition.transcript
        current = sessions.get(request.session_hash)
        if current is None:
            yield initial
        elif current is session and session.cancelled:
            yield {**idle, **result(session, html.stopped(session.transcript))}
        elif current is session:
            summary = html.summary(session.transcript, time.monotonic() - started)
            yield {**done, **result(session, summary)}

    def stopped(request: gr.Request) -> Update:
        """The text so far stays and can be saved."""
        session = sessions.get(request.session_hash)
        if session is None:
            return initial
        session.cancelled = True
        return {stop: gr.update(visible=False)} if session.started else {**empty, **idle}

    def result(session: Session, summary: str) -> Update:
        transcript = session.transcript
        warnings = html.warnings(transcript.warnings)
        if not transcript.words:
            return {status: html.silence(transcript.duration) + warnings, text: ""}
        stem = Path(session.path).stem
        files = {f"{stem}.{format}": transcript.render(format) for format in SAVED_FORMATS}
        paragraphs = html.text_start()
        for index, segment in enumerate(transcript.segments):
            paragraphs += html.segment(segment, index)
        return {
            sound: gr.update(
                subtitles=[
                    {"text": caption, "timestamp": [start / 1000, end / 1000]}
                    for start, end, caption in transcript.cues()
                ]
            ),
            status: summary + warnings + html.legend(transcript.words),
            text: gr.update(value=paragraphs + html.saving(files), files=files),
        }

    def cleared(request: gr.Request) -> Update:
        sessions.end(request.session_hash)
        return initial

    def draw_first(request: gr.Request) -> str:
        return _picture_of(sessions.get(request.session_hash), 0)

    def draw(event: gr.EventData, request: gr.Request) -> str:
        """Draws the segment of the clicked word."""
        return _picture_of(sessions.get(request.session_hash), event.segment)

    def offer_options(model: str) -> Update:
        can_choose = recognizers[model].bundle.has_language_model
        return {
            decoder: gr.update(value="beam" if can_choose else "greedy", visible=can_choose),
            hotwords: gr.update(value="", visible=can_choose),
        }

    def offer_hotwords(decoder: str) -> Update:
        """Hot words work only with the beam search, so other decoders hide them."""
        return {
            hotwords: gr.update(visible=True) if decoder == "beam" else gr.update(value="", visible=False)
        }

    def transcribe(sound: str | None, model: str, decoder: str, hotwords: str) -> dict[str, Any]:
        """Transcribes a recording; returns text, segments and words with the fields of OpenAI's verbose_json.

        sound: an audio file. model: name of a model on the page. decoder: "beam" (if the model has a language
        model) or "greedy". hotwords: names and terms to expect, separated by commas; only for "beam".
        """
        if sound is None:
            raise gr.Error("no recording: pass an audio file as sound", print_exception=False)
        try:
            recognition = Recognition(recognizers[model], sound, decoder, hotwords)
            list(recognition)
        except ValueError as error:
            raise gr.Error(_without_folder(error, sound), print_exception=False) from None
        return recognition.transcript.to_dict()

    private = {"api_visibility": "private", "show_progress": "hidden"}
    options = [model, decoder, hotwords]
    page = [sound, again, stop, status, text, picture]

    triggers = [sound.upload, sound.stop_recording, again.click]
    begun = gr.on(triggers, begin, sound, page, queue=False, **private)
    one_at_a_time = {"concurrency_id": RECOGNIZER, "concurrency_limit": 1}
    running = begun.then(recognize, options, page, trigger_mode="multiple", **one_at_a_time, **private)
    running.success(draw_first, None, picture, concurrency_id=PICTURE, **private)
    text.click(draw, None, picture, concurrency_id=PICTURE, **private)
    stop.click(stopped, None, page, queue=False, **private)
    sound.clear(cleared, None, page, queue=False, **private)
    model.change(offer_options, model, [decoder, hotwords], queue=False, **private)
    decoder.change(offer_hotwords, decoder, hotwords, queue=False, **private)

    # The API endpoint needs a trigger and an output; both are hidden.
    gr.Button(visible=False).click(
        transcribe,
        [sound, *options],
        gr.JSON(label="Transcript", visible=False),
        api_name="transcribe",
        **one_at_a_time,
    )


def _picture_of(session: Session | None, index: int) -> str:
    """The picture of a segment; "" before there is a transcript, or for one without segments."""
    if session is None or session.transcript is None or not session.transcript.segments:
        return ""
    segment = session.transcript.segments[index]
    start = max(0.0, segment.start - PICTURE_MARGIN_SECONDS)
    duration = min(segment.end + PICTURE_MARGIN_SECONDS - start, PICTURE_SECONDS)
    words = [word for word in segment.words if word.end <= start + duration]
    try:
        session.keep_file()
        samples = load_audio(session.path, start, duration, warn=lambda warning: None)  # shown before
        picture = picture_html(samples, start, words)
    except FileNotFoundError:
        picture = html.error("The recording was deleted after an hour. Upload it again to see this picture.")
    return picture + html.alternatives(segment)


def _without_folder(error: Exception, path: str) -> str:
    """The message with the file's name in place of its path on the server."""
    return str(error).replace(path, Path(path).name)


def _decoders(bundles: Sequence[Bundle]) -> list[tuple[str, str]]:
    """Labels and names of the decoders that suit one of the models, the best first."""
    suitable = {
        ("Sentences", "joint"): lambda bundle: bundle.vocabulary is not None,
        ("Words, with language model", "beam"): lambda bundle: bundle.has_ctc and bundle.has_language_model,
        ("Words, without language model (faster)", "greedy"): lambda bundle: bundle.has_ctc,
    }
    return [choice for choice, suits in suitable.items() if any(map(suits, bundles))]
