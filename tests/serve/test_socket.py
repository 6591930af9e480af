"""Live text over WebSockets: vosk-server's protocol, OpenAI's realtime events, and clients that misbehave."""

import asyncio
import base64
import json
import logging
import resource
import socket
import threading
import time
from contextlib import suppress
from itertools import pairwise

import httpx
import numpy as np
import openai
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from asr.serve import realtime
from asr.serve import vosk as vosk_protocol
from asr.streaming import Final, Partial
from asr.transcript import Segment, Transcript
from tests.asr.conftest import speak  # noqa: F401 (a fixture)
from tests.serve.serving import served, wait_until

ANSWER_SECONDS = 200  # the first beam search has to be compiled
CUTS = st.lists(st.floats(0, 1), max_size=8)
TEXTS = ["hello", "it's me"]  # of the talk
TRANSCRIPTION = "conversation.item.input_audio_transcription"
KEY = "schlüssel"  # keys need not be ASCII


def pcm(samples) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


@pytest.fixture(scope="module")
def talk(speak) -> np.ndarray:  # noqa: F811
    return speak("hello", 2.0, "it's me", 1.0)


@pytest.fixture(scope="module")
def url(recognizer):
    with served({"tones": recognizer}) as url:
        yield url.replace("http", "ws")


@pytest.fixture(autouse=True)
def unharmed(request, caplog):
    """No test leaves a traceback in the log, or a stream open."""
    yield
    assert [record for record in caplog.records if record.exc_info] == []
    if "url" in request.fixturenames:
        wait_until(lambda: metric(request.getfixturevalue("url"), "hark_streams") == 0)


def metric(url: str, name: str) -> float:
    text = httpx.get(url.replace("ws", "http") + "/metrics", trust_env=False).text
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])


def cut(sound: bytes, cuts: list[float]) -> list[bytes]:
    places = sorted(round(share * len(sound)) for share in cuts)
    return [sound[start:end] for start, end in pairwise([0, *places, len(sound)])]


def blocks(sound: bytes, size: int = 6400) -> list[bytes]:
    return [sound[start : start + size] for start in range(0, len(sound), size)]


def ask(client, message) -> dict:
    client.send(message if isinstance(message, bytes | str) else json.dumps(message))
    return json.loads(client.recv(ANSWER_SECONDS))


def vosk(url, sound_blocks, **config) -> list[dict]:
    """The answers to a client that waits for each, as vosk-server's own do."""
    with connect(url, proxy=None) as client:
        client.send(json.dumps({"config": {"sample_rate": 16_000, **config}}))
        answers = [ask(client, block) for block in sound_blocks]
        answers.append(ask(client, '{"eof" : 1}'))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(10)
        assert closed.value.rcvd.code == 1000
    return answers


def closing(url, *messages, **options) -> tuple[int, str]:
    """The close code and reason that these messages get."""
    with connect(url, proxy=None, **options) as client, pytest.raises(ConnectionClosed) as closed:
        for message in messages:
            client.send(message)
        while True:
            client.recv(ANSWER_SECONDS)
    return closed.value.rcvd.code, closed.value.rcvd.reason


# vosk-server's protocol


def test_vosk_answers_each_block_and_finishes_at_eof(url, talk, recognizer):
    answers = vosk(url, blocks(pcm(talk)))
    assert len(answers) == len(blocks(pcm(talk))) + 1
    partials = [answer["partial"] for answer in answers if "partial" in answer]
    assert "hello" in partials and any(partial.startswith("it's") for partial in partials)
    assert partials[0] == ""
    results = [answer for answer in answers if "partial" not in answer]
    assert [result["text"] for result in results] == TEXTS
    assert answers[-1] == results[-1]
    expected: Transcript = recognizer.transcribe(talk)
    words = [word for result in results for word in result["result"]]
    assert [word["word"] for word in words] == [word.text for word in expected.words]
    for word, other in zip(words, expected.words, strict=True):
        assert (word["start"], word["end"]) == pytest.approx((other.start, other.end), abs=0.002)
        assert 0 <= word["conf"] <= 1


def test_vosk_has_words_only_if_wanted_and_alternatives(url, talk):
    sound = [pcm(talk)]
    assert vosk(url, sound, words=0)[-1] == {"text": "it's me"}
    alternatives = vosk(url, sound, max_alternatives=5)[-1]["alternatives"]
    assert [(found["text"], len(found["result"])) for found in alternatives] == [("it's me", 2)]
    assert vosk(url, [])[-1] == {"text": ""}
    assert vosk(url, [b"", b"\0"])[-1] == {"text": ""}


def test_vosk_resamples_and_expects_phrases(url, talk):
    at_48_khz = pcm(soxr.resample(talk, 16_000, 48_000))
    phrases = ["it's me", "[unk]", "1984"]  # the last two cannot be written
    answers = vosk(url, blocks(at_48_khz, 20_000), sample_rate=48_000, phrase_list=phrases)
    assert [answer["text"] for answer in answers if "text" in answer] == TEXTS


def test_vosk_reset_keeps_the_clock(url, talk):
    with connect(url, proxy=None) as client:
        client.send('{"config": {"sample_rate": 16000, "words": false}}')
        ask(client, pcm(talk))
        assert ask(client, '{"reset": 1}') == {"text": "it's me"}
        client.send('{"config": {"words": true}}')  # the rate stays
        assert "partial" in ask(client, pcm(talk[:24_000]))
        [word] = ask(client, '{"eof":1}')["result"]
    assert word["word"] == "hello"
    assert len(talk) / 16_000 < word["start"] < len(talk) / 16_000 + 1


@settings(max_examples=10)
@given(CUTS)
def test_vosk_gives_the_same_however_the_sound_is_cut_and_sent(url, talk, cuts):
    """Even to a client that sends all before it reads: each block has its answer."""
    whole = vosk(url, [pcm(talk)])
    parts = cut(pcm(talk), cuts)
    with connect(url, proxy=None) as client:
        client.send('{"config": {"sample_rate": 16000}}')
        for part in parts:
            client.send(part)
        client.send('{"eof": 1}')
        answers = [json.loads(answer) for answer in client]
    assert len(answers) == len(parts) + 1
    words = [word for answer in answers for word in answer.get("result", [])]
    assert words == [word for answer in whole for word in answer.get("result", [])]


# OpenAI's events


def events_of(url, parts, *, session=None, headers=None) -> list[dict]:
    """All events until the commit at the end is complete."""
    found = []
    address = f"{url}/v1/realtime?intent=transcription"
    with connect(address, proxy=None, additional_headers=headers) as client:
        found.append(json.loads(client.recv(10)))
        for event in [session] if session else []:
            found.append(ask(client, event))
        for part in parts:
            audio = base64.b64encode(part).decode()
            client.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        client.send('{"type": "input_audio_buffer.commit"}')
        wait_for = [TRANSCRIPTION + ".completed"] * (1 if session and "null" in json.dumps(session) else 2)
        while wait_for:
            found.append(json.loads(client.recv(ANSWER_SECONDS)))
            if found[-1]["type"] == wait_for[0]:
                wait_for.pop()
    return found


def of(kind: str, events: list[dict]) -> list[dict]:
    return [event for event in events if event["type"] == kind]


@pytest.fixture(scope="module")
def at_24_khz(talk) -> bytes:
    return pcm(soxr.resample(talk, 16_000, 24_000))


def test_realtime_items_are_utterances(url, at_24_khz, talk):
    events = events_of(url, blocks(at_24_khz, 4800))
    assert events[0]["type"] == "session.created"
    completed = of(TRANSCRIPTION + ".completed", events)
    assert [event["transcript"] for event in completed] == TEXTS
    for event in completed:
        kinds = [other["type"] for other in events if other.get("item_id") == event["item_id"]]
        assert kinds[0] == "input_audio_buffer.speech_started"
        assert kinds[-3:-1] == ["input_audio_buffer.speech_stopped", "input_audio_buffer.committed"]
        deltas = of(TRANSCRIPTION + ".delta", events)
        text = "".join(other["delta"] for other in deltas if other["item_id"] == event["item_id"])
        assert event["transcript"].startswith(text) and text
    assert completed[0]["item_id"] == of("conversation.item.created", events)[1]["previous_item_id"]
    spoken = [event["audio_start_ms"] for event in of("input_audio_buffer.speech_started", events)]
    assert spoken[0] < 700 and 2000 < spoken[1] < 3000
    assert sum(event["usage"]["seconds"] for event in completed) == pytest.approx(
        len(talk) / 16_000, abs=0.01
    )


def test_realtime_without_turn_detection_has_an_item_a_commit(url, at_24_khz):
    update = {"type": "session.update", "session": {"type": "transcription"}}
    update["session"]["audio"] = {"input": {"turn_detection": None}}
    events = events_of(url, blocks(at_24_khz, 4800), session=update)
    assert events[1]["session"]["audio"]["input"]["turn_detection"] is None
    [completed] = of(TRANSCRIPTION + ".completed", events)
    assert completed["transcript"] == "hello it's me"
    deltas = "".join(event["delta"] for event in of(TRANSCRIPTION + ".delta", events))
    assert deltas and "hello it's me".startswith(deltas)
    assert not of("input_audio_buffer.speech_started", events)


def test_realtime_has_the_first_names_of_events_for_those_who_want_them(url, at_24_khz):
    session = {"input_audio_format": "pcm16", "input_audio_transcription": {"prompt": "hello"}}
    update = {"type": "transcription_session.update", "session": {**session, "turn_detection": None}}
    events = events_of(url, [at_24_khz], session=update, headers={"OpenAI-Beta": "realtime=v1"})
    kinds = [event["type"] for event in events[:2]]
    assert kinds == ["transcription_session.created", "transcription_session.updated"]
    assert events[1]["session"]["input_audio_transcription"]["prompt"] == "hello"


class Scripted:
    """In place of a connection whose sound has just these events; what is sent is kept."""

    def __init__(self, events, update):
        self.headers, self.query, self.seconds = {}, {"intent": "transcription"}, 0.0
        append = {"type": "input_audio_buffer.append", "audio": "AAAA"}
        commit = {"type": "input_audio_buffer.commit"}
        self.coming = [*([json.dumps(event)] for event in (update, append, commit)), []]
        self.events, self.sent = events, []

    def configure(self, *_) -> None: ...

    async def received(self) -> list[str]:
        return self.coming.pop(0)

    async def write(self, sound):
        if sound:
            self.seconds += 1.0
            for event in self.events:
                yield [event]

    async def finish(self) -> list:
        return []

    async def send(self, message) -> None:
        self.sent.append(message)


@pytest.mark.parametrize(
    ("turns", "deltas", "texts"),
    [
        ({"type": "server_vad"}, ["it's", " me", "you"], ["It's me.", "", ""]),
        (None, ["it's", " me", " you"], ["It's me."]),
    ],
)
def test_realtime_deltas_are_stable_words_only(recognizer, turns, deltas, texts):
    script = [
        Partial("it's mean", 4, 0.0, 0.6),
        Partial("it's me", 7, 0.0, 1.0),
        Final(Segment(0.0, 1.0, "It's me.", ())),
        Partial("you", 3, 2.0, 2.5),  # of an utterance that the decoder takes back
        Partial("", 0, 2.0, 2.5),
    ]
    audio = {"input": {"turn_detection": turns}}
    connection = Scripted(script, {"type": "session.update", "session": {"audio": audio}})
    asyncio.run(realtime.talk(connection, {"tones": recognizer}))
    assert [event["delta"] for event in of(TRANSCRIPTION + ".delta", connection.sent)] == deltas
    completed = of(TRANSCRIPTION + ".completed", connection.sent)
    assert [event["transcript"] for event in completed] == texts


@settings(max_examples=10)
@given(CUTS)
def test_realtime_items_are_the_same_however_the_sound_is_cut(url, at_24_khz, cuts):
    found = of(TRANSCRIPTION + ".completed", events_of(url, cut(at_24_khz, cuts)))
    assert [event["transcript"] for event in found] == TEXTS


def test_realtime_with_openais_own_client(url, at_24_khz):
    async def talk() -> tuple[list[str], list[str]]:
        client = openai.AsyncOpenAI(base_url=url.replace("ws", "http") + "/v1", api_key="any")
        query = {"intent": "transcription"}
        options = {"proxy": None}
        async with client.realtime.connect(
            extra_query=query, websocket_connection_options=options
        ) as connection:
            audio = {"input": {"transcription": {"model": "gpt-4o-transcribe", "language": "en"}}}
            await connection.session.update(session={"type": "transcription", "audio": audio})
            for block in blocks(at_24_khz, 24_000):
                await connection.input_audio_buffer.append(audio=base64.b64encode(block).decode())
            await connection.input_audio_buffer.commit()
            kinds, texts = [], []
            async for event in connection:
                kinds.append(event.type)
                if event.type == TRANSCRIPTION + ".completed":
                    texts.append(event.transcript)
                    if len(texts) == len(TEXTS):
                        return kinds, texts

    kinds, texts = asyncio.run(talk())
    assert texts == TEXTS
    assert kinds[:2] == ["session.created", "session.updated"]
    assert TRANSCRIPTION + ".delta" in kinds


def transcribed(**fields) -> dict:
    return {"type": "session.update", "session": {"audio": {"input": {"transcription": fields}}}}


def test_realtime_errors_are_events_and_the_connection_stays(url, at_24_khz):
    with connect(f"{url}/v1/realtime?intent=transcription", proxy=None) as client:
        client.recv(10)
        for message, code in [
            ("{", "invalid_value"),
            ("[" * 100_000, "invalid_value"),
            ("7", "invalid_value"),
            (b"\xff\0", "invalid_value"),
            ({"type": 7}, "invalid_value"),
            ({"type": "response.create", "event_id": "mine"}, "unknown_event"),
            ({"type": "input_audio_buffer.append", "audio": "ä"}, "invalid_value"),
            ({"type": "input_audio_buffer.append", "audio": "abc"}, "invalid_value"),
            ({"type": "input_audio_buffer.append", "audio": 7}, "invalid_value"),
            ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty"),
            ({"type": "session.update", "session": {"type": "realtime"}}, "invalid_value"),
            (
                {"type": "transcription_session.update", "session": {"input_audio_format": "g711_ulaw"}},
                "invalid_value",
            ),
            (
                {
                    "type": "session.update",
                    "session": {"audio": {"input": {"transcription": {"model": "x"}}}},
                },
                "model_not_found",
            ),
            (
                {
                    "type": "session.update",
                    "session": {"audio": {"input": {"transcription": {"language": "fr"}}}},
                },
                "invalid_value",
            ),
        ]:
            answer = ask(client, message)
            assert (answer["type"], answer["error"]["code"]) == ("error", code), message
            assert answer["error"]["event_id"] == ("mine" if code == "unknown_event" else None)
        audio = base64.b64encode(at_24_khz[:48_000]).decode()
        client.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        update = {"type": "session.update", "session": {}}
        kinds = [ask(client, update)["type"]]
        while kinds[-1] != "error":  # the first word may come before
            kinds.append(json.loads(client.recv(10))["type"])
        client.send('{"type": "input_audio_buffer.clear"}')
        assert json.loads(client.recv(10))["type"] == "input_audio_buffer.cleared"
        assert ask(client, update)["type"] == "session.updated"


# Clients that misbehave


@pytest.mark.parametrize(
    ("messages", "code", "reason"),
    [
        (["hello"], 1007, "Invalid JSON"),
        (["[" * 100_000], 1007, "Invalid JSON"),
        (["{}"], 1007, "neither config, eof nor reset"),
        (["7"], 1007, "The message"),
        (['{"config": 7}'], 1007, "config"),
        (['{"config": {"sample_rate": "fast"}}'], 1007, "config.sample_rate"),
        (['{"config": {"sample_rate": NaN}}', b"\0\0"], 1007, ""),
        (['{"config": {"sample_rate": 1e999}}', b"\0\0"], 1007, ""),
        (['{"config": {"sample_rate": -8000}}', b"\0\0"], 1007, "rate"),
        (['{"config": {"phrase_list": [7]}}'], 1007, "config.phrase_list.0"),
        ([json.dumps({"config": {"phrase_list": ["a"] * 101}})], 1007, "at most 100"),
        (['{"config": {"model": "../../etc"}}'], 1008, "no such model"),
        ([np.sin(np.arange(4000, dtype="<f4")).tobytes()], 1007, "holds 32-bit floats"),
    ],
)
def test_vosk_closes_with_the_reason(url, messages, code, reason):
    found = closing(url, *messages)
    assert found[0] == code and reason in found[1]


def test_realtime_ends_with_floats_and_other_intents(url):
    floats = base64.b64encode(np.sin(np.arange(4000, dtype="<f4")).tobytes()).decode()
    append = json.dumps({"type": "input_audio_buffer.append", "audio": floats})
    code, reason = closing(f"{url}/v1/realtime?intent=transcription", append)
    assert code == 1007 and "32-bit floats" in reason
    assert closing(f"{url}/v1/realtime")[0] == 1007
    assert closing(f"{url}/v1/realtime?intent=transcription&model=x")[0] == 1008


NAMES = [*vosk_protocol.Command.model_fields, *vosk_protocol.Config.model_fields]
NAMES += [*realtime.ClientEvent.model_fields, *realtime.Session.model_fields, *realtime.Input.model_fields]
TYPES = ["session.update", "transcription_session.update", "input_audio_buffer.append", "audio/pcm", "null"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(TYPES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
)
MESSAGES = st.lists(st.text(max_size=20) | st.binary(max_size=20) | JSON.map(json.dumps), max_size=4)


@settings(max_examples=40)
@given(MESSAGES)
def test_any_messages_are_answered_without_a_bug(url, messages):
    code, _ = closing(url, *messages, '{"eof": 1}')
    assert code in (1000, 1007, 1008)
    with connect(f"{url}/v1/realtime?intent=transcription", proxy=None) as client:
        with suppress(ConnectionClosed):
            for message in [*messages, '{"type": "input_audio_buffer.clear"}']:
                client.send(message)
            event = {}
            while event.get("type") != "input_audio_buffer.cleared":
                event = json.loads(client.recv(ANSWER_SECONDS))
                assert event.get("error", {}).get("type") != "server_error"
        assert client.close_code in (None, 1007)


def upgraded(url: str, path: bytes = b"/", receive_bytes: int = 100_000) -> socket.socket:
    """A socket after the handshake, for frames that no library sends."""
    client = socket.socket()
    client.settimeout(10)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.connect(("127.0.0.1", int(url.rpartition(":")[2])))
    client.sendall(
        b"GET %s HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" % path
        + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1)
    assert head.startswith(b"HTTP/1.1 101")
    return client


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\xff\xff\xff\xff" * 8, 1002),  # reserved bits
        (b"\x82\x05hello", 1002),  # not masked
        (b"\x81\x82\0\0\0\0\xff\xff", 1007),  # text that is no UTF-8
        (b"\x82\xff\0\0\0\0\0\x0f\x42\x41\0\0\0\0", 1009),  # 1,000,001 bytes
        (b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1009),  # 9 exabytes
    ],
)
def test_garbage_frames(url, frames, code):
    with upgraded(url) as client:
        client.sendall(frames)
        answer = b""
        while data := client.recv(1000):
            answer += data
    assert answer[0] == 0x88 and int.from_bytes(answer[2:4]) == code


def block_in(protocol: str, sound: bytes) -> tuple[bytes, bytes]:
    """The address of a protocol, and a frame of its message with this sound."""
    if protocol == "vosk":
        path, kind, message = b"/", b"\x82", sound
    else:
        path, kind = b"/v1/realtime?intent=transcription", b"\x81"
        append = {"type": "input_audio_buffer.append", "audio": base64.b64encode(sound).decode()}
        message = json.dumps(append).encode()
    return path, kind + b"\xff" + len(message).to_bytes(8) + b"\0\0\0\0" + message


@pytest.mark.parametrize("protocol", ["vosk", "realtime"])
def test_clients_that_go_without_a_word(url, talk, protocol):
    path, frame = block_in(protocol, pcm(talk)[:32_000])
    with upgraded(url, path) as client:
        client.sendall(frame * 3)
        client.shutdown(socket.SHUT_WR)  # half closed: nothing more can come
        while client.recv(1000):
            pass
    with upgraded(url, path) as client:
        client.sendall(frame[:1000])  # in the midst of a message
    client = upgraded(url, path)
    client.sendall(frame * 3)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()  # by a reset
    assert [answer["text"] for answer in vosk(url, [pcm(talk)]) if "text" in answer][-1] == "it's me"


@pytest.mark.parametrize(("protocol", "rate"), [("vosk", 8000), ("realtime", 24_000)])
def test_a_flood_is_read_no_faster_than_it_is_recognised(url, talk, protocol, rate):
    """1 GB is sent at once, as far as it is taken; memory is bounded, and another client is served."""
    block = pcm(talk)[:64_000]
    path, frame = block_in(protocol, block)
    sent, stop = 0, threading.Event()

    def flood() -> None:
        nonlocal sent
        with upgraded(url, path) as client:
            client.settimeout(0.2)
            while sent < 1_000_000_000 and not stop.is_set():
                try:
                    sent += client.send(frame[sent % len(frame) :])
                except TimeoutError:
                    continue

    before_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    worked_off = metric(url, "hark_streamed_seconds_total")
    thread = threading.Thread(target=flood)
    thread.start()
    try:
        wait_until(lambda: metric(url, "hark_streamed_seconds_total") > worked_off + 20)
        answers = vosk(url, blocks(pcm(talk)))
        assert [answer["text"] for answer in answers if "text" in answer] == TEXTS
        assert metric(url, "hark_streams") == 1
        recognised = 2 * rate * (metric(url, "hark_streamed_seconds_total") - worked_off)
        waiting = sent * len(block) / len(frame) - recognised
    finally:
        stop.set()
        thread.join()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before_bytes
    assert waiting < 20_000_000  # most of it in the kernel's buffers
    assert grown < 100_000_000


def test_limits(recognizer, talk):
    limits = {"max_streams": 2, "max_idle_seconds": 1, "max_seconds": 3, "max_message_kilobytes": 100}
    with served({"tones": recognizer}, **limits) as url:
        url = url.replace("http", "ws")
        code, reason = closing(url)
        assert code == 1008 and "1 s" in reason
        assert closing(f"{url}/v1/realtime?intent=transcription")[0] == 1008
        long = blocks(bytes(200_000), 16_000)  # 12.5 s of silence at 8 kHz
        code, reason = closing(url, *long)
        assert code == 1007 and "longer than 3 s" in reason
        with upgraded(url) as client:
            client.sendall(b"\x82\xff\0\0\0\0\0\x01\x86\xa1\0\0\0\0")  # the head of 100,001 bytes
            assert client.recv(1000)[2:4] == (1009).to_bytes(2)
        with connect(url, proxy=None) as one, connect(url, proxy=None) as two:
            with pytest.raises(InvalidStatus) as refused:
                connect(url, proxy=None)
            assert refused.value.response.status_code == 429
            assert refused.value.response.headers["Retry-After"] == "10"
            assert ask(one, b"\0\0") == ask(two, b"\0\0") == {"partial": ""}
        wait_until(lambda: metric(url, "hark_streams") == 0)
        text = httpx.get(url.replace("ws", "http") + "/metrics", trust_env=False).text
        assert 'hark_errors_total{code="idle"} 2.0' in text
        with connect(url, proxy=None) as client:  # open for too long, though never idle
            started = time.monotonic()
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    ask(client, b"\0\0")
                    time.sleep(0.2)
        assert closed.value.rcvd.code == 1007 and 2 < time.monotonic() - started < 8


def test_who_reads_no_answer_is_closed(recognizer):
    with served({"tones": recognizer}, max_idle_seconds=1) as url:
        with upgraded(url, b"/v1/realtime?intent=transcription", receive_bytes=2000) as client:
            client.settimeout(1)
            with suppress(OSError):  # it reads no more, or has closed
                for _ in range(1000):
                    client.sendall(b"\x81\x80\0\0\0\0" * 1000)  # of which each is answered by an error
            wait_until(lambda: metric(url, "hark_streams") == 0)
        text = httpx.get(f"{url}/metrics", trust_env=False).text
        assert 'hark_errors_total{code="idle"} 1.0' in text


def test_the_key_and_where_pages_come_from(recognizer):
    def status(address: str, **options) -> int:
        try:
            with connect(address, proxy=None, **options):
                return 101
        except InvalidStatus as refused:
            assert "error" in json.loads(refused.response.body)
            return refused.response.status_code

    with served({"tones": recognizer}, api_key=KEY, cors_origins=("https://a.example",)) as url:
        host = url.rpartition("/")[2]
        for address in (f"ws://{host}/", f"ws://{host}/v1/realtime"):
            assert (
                status(address) == status(f"{address}?api_key=wrong") == status(f"{address}?api_key=Ж") == 401
            )
            good = f"{address}?api_key={KEY}"
            assert status(good) == status(good, origin=f"http://{host}") == 101
            assert status(good, origin="https://a.example") == 101
            assert status(good, origin="https://b.example") == status(good, origin="null") == 403
            assert status(address, additional_headers={"Authorization": "Bearer wrong"}) == 401
        with served({"tones": recognizer}, api_key="abc") as other:
            names = ["realtime", "openai-insecure-api-key.abc"]
            other = other.replace("http", "ws") + "/v1/realtime"
            with connect(other, proxy=None, subprotocols=names) as client:
                assert client.subprotocol == "realtime"
            assert status(other, subprotocols=["realtime"]) == 401
            assert status(other, additional_headers={"Authorization": "Bearer abc"}) == 101
        with pytest.raises(InvalidStatus):
            connect(f"ws://{host}/elsewhere", proxy=None)


def test_the_log_names_routes_only(url, talk, caplog):
    with caplog.at_level(logging.INFO, "hark"):
        vosk(f"{url}/?secret=1", [pcm(talk)])
        wait_until(lambda: caplog.messages)
    [line] = [line for line in caplog.messages if "WebSocket" in line and "sound" in line]
    assert line.startswith("WebSocket / 1000 in ") and "secret" not in line
