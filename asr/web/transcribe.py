"""The tab "Transcribe": record or upload audio, read, correct and play the text, save the transcript.

The transcript is the browser's, in script/: there it is edited, kept and brought back. The server recognises,
finds the times of corrected words, draws pictures and writes files, from what the browser sends it.
"""

import itertools
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from anyio import to_thread

from asr.audio import SAMPLE_RATE
from asr.recognizer import Recognizer
from asr.turns import Turns
from asr.web.edited import from_page, to_page
from asr.web.markup import html
from asr.web.recognize import Recognition, decoder_choices, in_turns, model_choices
from asr.web.server_functions import server_functions
from asr.web.sessions import Sessions, several

FOLDER = Path(__file__).parent
# In one scope, in this order.
SCRIPTS = ("keep", "words", "text", "correct", "film", "sound", "live", "several", "search", "transcribe")
# Words less likely than this are marked, but of each text at most such a part. On the dev sets, the marked
# words are 12 % of all, and 52 % of the wrong ones.
DOUBTFUL_BELOW, MARKED_AT_MOST = 0.85, 0.15
RECOGNIZER, AT_ONCE = "recognizer", 32  # recordings that take turns; others wait
INTERNAL_ERROR = "Something went wrong. Try again, or ask whoever runs this page to look at its log."

Update = dict[Any, Any]  # component → new value


def transcribe_tab(recognizers: Mapping[str, Recognizer], turns: Turns, sessions: Sessions) -> None:
    """Adds the tab to the current Blocks or Tab; the first of `recognizers` is the default."""
    names = list(recognizers)
    decoders = decoder_choices([recognizer.bundle for recognizer in recognizers.values()])
    best = decoder_choices([recognizers[names[0]].bundle])[0][1]

    def knows_hotwords(model: str, decoder: str) -> bool:
        """They are found by a search over the CTC head."""
        return recognizers[model].bundle.has_ctc and decoder != "greedy"

    choices = len(names) > 1 or best != "greedy"
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
        queued = gr.Audio(type="filepath", visible=False)  # one of several recordings
        with gr.Row(elem_classes="options", visible=choices):
            model = gr.Dropdown(
                model_choices(recognizers), value=names[0], label="Model", visible=len(names) > 1
            )
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
                visible=knows_hotwords(names[0], best),
            )
        with gr.Row(elem_classes="actions"):
            status = gr.HTML(elem_id="status", apply_default_css=False)
            gr.HTML(html_template='<p class="summary" role="status"></p>', apply_default_css=False)
            again = gr.Button("Transcribe again", visible=False, size="sm", min_width=150, scale=0)
            stop = gr.Button("Stop", visible=False, size="sm", min_width=90, scale=0)
        text = gr.HTML(
            html_template=(FOLDER / "transcript.html").read_text(encoding="utf-8"),
            elem_id="text",
            apply_default_css=False,
            js_on_load="\n".join(
                (FOLDER / "script" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS
            ),
            server_functions=server_functions(recognizers, sessions),
            feed={},  # what the server has to say, for the script
            several={},  # the same of the running one of several recordings
            doubtful_below=DOUBTFUL_BELOW,
            marked_at_most=MARKED_AT_MOST,
        )

    # gr.update, since creating a component here would add it to the page.
    busy = {again: gr.update(visible=False), stop: gr.update(visible=True)}
    idle = {again: gr.update(visible=True), stop: gr.update(visible=False)}
    done = {
        **idle,
        again: gr.update(visible=choices),
        status: "",
    }  # without options the result would be the same
    empty = {sound: gr.update(subtitles=None), status: ""}
    initial = {**empty, again: gr.update(visible=False), stop: gr.update(visible=False)}
    labels = {name: label for label, name in decoders} if len(decoders) > 1 else {}
    numbers = itertools.count()  # so that the same news twice are news

    def made_with(model: str, decoder: str, hotwords: str) -> dict[str, str]:
        label = labels.get(decoder, "")
        return {"model": model, "decoder": decoder, "label": label, "hotwords": hotwords.strip()}

    def feed(request: gr.Request, **news: Any) -> Update:
        return {text: gr.update(feed={"page": request.session_hash, "number": next(numbers), **news})}

    def begin(path: str, request: gr.Request) -> Update:
        """Updates the page at once; the recording may have to wait in the queue."""
        previous = sessions.get(request.session_hash)
        sessions.begin(request.session_hash, path)
        new = (
            empty if previous is None or previous.path != path else {}
        )  # the old text stays until there is another
        return {**new, **busy, **feed(request), status: html.waiting()}

    def attach(path: str | None, request: gr.Request) -> Update:
        """The browser brings back a recording whose text it has; without sound it was too large to keep."""
        if path is None:
            sessions.end(request.session_hash)
            return {**initial, **feed(request, state="attached")}
        sessions.begin(request.session_hash, path)
        return {**empty, **idle, **feed(request, state="attached")}

    async def recognize(
        model: str, decoder: str, hotwords: str, request: gr.Request
    ) -> AsyncIterator[Update]:
        """Feeds the text utterance by utterance, until the session is cancelled.

        Gradio's own cancelling is not used: a late update could then overwrite what Stop or Clear showed.
        """
        session = sessions.get(request.session_hash)
        if session is None or session.cancelled:  # while it was queued
            return
        session.started = True
        yield {**busy, status: html.progress(0.0, None, 0, None, 0)}
        made = made_with(model, decoder, hotwords)

        def news(state: str) -> Update:
            seconds = recognition.seconds
            transcript = to_page(recognition.transcript)
            return feed(request, path=session.path, state=state, made=made, seconds=seconds, **transcript)

        try:
            recognition = await to_thread.run_sync(
                Recognition, recognizers[model], session.path, decoder, hotwords
            )
            async for _ in in_turns(recognition, turns, session):
                status_now = html.progress(
                    recognition.done_seconds,
                    recognition.total_seconds,
                    len(recognition.transcript.words),
                    recognition.seconds_left,
                    turns.recordings - 1,
                )
                yield {status: status_now, **news("running")}
        except ValueError as error:  # a recording that cannot be read, a decoder that the model lacks
            message = html.error(_without_folder(error, session.path))
            yield {**idle, **feed(request, path=session.path, state="unreadable"), status: message}
            return
        except Exception:  # a bug
            yield {**idle, status: html.error(INTERNAL_ERROR)}
            raise
        current = sessions.get(request.session_hash)
        if current is None:
            yield initial
        elif current is session and not recognition.transcript.words:
            silence = html.silence(recognition.transcript.duration)
            yield {**done, **news("done"), status: silence + html.warnings(recognition.transcript.warnings)}
        elif current is session and session.cancelled:
            yield {**idle, **news("stopped"), status: ""}
        elif current is session:
            yield {**done, **news("done")}

    async def recognize_queued(
        path: str, model: str, decoder: str, hotwords: str, request: gr.Request
    ) -> AsyncIterator[Update]:
        """Recognises one of several recordings, and deletes it."""
        key = several(request.session_hash)
        session = sessions.begin(key, path)

        def tell(**news: Any) -> Update:
            return {text: gr.update(several=news)}

        try:
            recognition = await to_thread.run_sync(Recognition, recognizers[model], path, decoder, hotwords)
            async for _ in in_turns(recognition, turns, session):
                yield tell(
                    done=recognition.done_seconds,
                    total=recognition.total_seconds,
                    left=recognition.seconds_left,
                    words=len(recognition.transcript.words),
                )
            transcript = {
                "state": "done",
                "made": made_with(model, decoder, hotwords),
                "seconds": recognition.seconds,
                **to_page(recognition.transcript),
            }
            news = tell(failed="stopped") if session.cancelled else tell(transcript=transcript)
        except ValueError as error:
            news = tell(failed=_without_folder(error, path))
        except Exception:  # a bug
            yield tell(failed=INTERNAL_ERROR)
            raise
        finally:
            sessions.end(key)
        yield news

    def stop_queued(request: gr.Request) -> None:
        sessions.end(several(request.session_hash))

    def stopped(request: gr.Request) -> Update:
        """The text so far stays and can be saved."""
        session = sessions.get(request.session_hash)
        if session is None:
            return initial
        session.cancelled = True
        return {stop: gr.update(visible=False)} if session.started else {**idle, status: ""}

    def cleared(request: gr.Request) -> Update:
        sessions.end(request.session_hash)
        return initial

    def caption(event: gr.EventData) -> Update:
        """The captions of the transcript as it is now."""
        cues = from_page(event.transcript).cues()
        return {
            sound: gr.update(
                subtitles=[
                    {"text": caption, "timestamp": [start / 1000, end / 1000]} for start, end, caption in cues
                ]
            )
        }

    def offer_decoders(model: str) -> Update:
        offered = decoder_choices([recognizers[model].bundle])
        best = offered[0][1]
        return {
            decoder: gr.update(choices=offered, value=best, visible=len(offered) > 1),
            **offer_hotwords(model, best),
        }

    def offer_hotwords(model: str, decoder: str) -> Update:
        if knows_hotwords(model, decoder):
            return {hotwords: gr.update(visible=True)}
        return {hotwords: gr.update(value="", visible=False)}

    async def transcribe(sound: str | None, model: str, decoder: str, hotwords: str) -> dict[str, Any]:
        """Transcribes a recording; returns text, segments and words with the fields of OpenAI's verbose_json.

        sound: an audio file. model: name of a model on the page. decoder: "joint" (if the model has an
        attention decoder), "beam" (if it has a language model) or "greedy". hotwords: names and terms to
        expect, separated by commas; not for "greedy".
        """
        if sound is None:
            raise gr.Error("no recording: pass an audio file as sound", print_exception=False)
        try:
            recognition = await to_thread.run_sync(Recognition, recognizers[model], sound, decoder, hotwords)
            async for _ in turns.segments(iter(recognition)):
                pass
        except ValueError as error:
            raise gr.Error(_without_folder(error, sound), print_exception=False) from None
        return recognition.transcript.to_dict()

    private = {"api_visibility": "private", "show_progress": "hidden"}
    options = [model, decoder, hotwords]
    page = [sound, again, stop, status, text]

    triggers = [sound.upload, sound.stop_recording, again.click]
    begun = gr.on(triggers, begin, sound, page, queue=False, **private)
    at_once = {"concurrency_id": RECOGNIZER, "concurrency_limit": AT_ONCE}
    begun.then(recognize, options, page, trigger_mode="multiple", **at_once, **private)
    text.captions(caption, None, page, queue=False, trigger_mode="multiple", **private)
    restored = text.restore(None, None, sound, js="() => window.hark.restored()", **private)
    restored.then(attach, sound, page, queue=False, **private)
    next_one = "(queued, ...options) => [window.hark.queued(), ...options]"
    text.several(
        recognize_queued,
        [queued, *options],
        [text],
        js=next_one,
        trigger_mode="multiple",
        **at_once,
        **private,
    )
    text.stopseveral(stop_queued, None, None, queue=False, **private)
    stop.click(stopped, None, page, queue=False, **private)
    sound.clear(cleared, None, page, queue=False, **private)
    model.change(offer_decoders, model, [decoder, hotwords], queue=False, **private)
    decoder.change(offer_hotwords, [model, decoder], hotwords, queue=False, **private)

    # What only the browser has to know.
    arrived = [sound.upload, sound.stop_recording]
    gr.on(arrived, None, sound, js="sound => { window.hark.opened(sound); }", **private)
    sound.clear(None, js="() => { window.hark.closed(); }", **private)
    sound.start_recording(None, js="() => { window.hark.recording(); }", **private)
    gr.on(None, None, options, js="(...chosen) => { window.hark?.chose(...chosen); }", **private)

    # The API endpoint needs a trigger and an output; both are hidden.
    gr.Button(visible=False).click(
        transcribe,
        [sound, *options],
        gr.JSON(label="Transcript", visible=False),
        api_name="transcribe",
        **at_once,
    )


def _without_folder(error: Exception, path: str) -> str:
    """The message with the file's name in place of its path on the server."""
    return str(error).replace(path, Path(path).name)
