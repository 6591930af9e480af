"""The API as OpenAI's own client calls it, and without one."""

import asyncio
import io
import json
import logging
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.audio import Transcription, TranscriptionVerbose
from prometheus_client.parser import text_string_to_metric_families

from asr.decode import decode_with
from asr.serve.openai import MAX_HOTWORD_CHARACTERS, terms_of
from asr.serve.settings import Settings
from tests.asr.conftest import speak  # noqa: F401 (a fixture)
from tests.serve.serving import served, wait_until

RATE = 16_000
HTTP = httpx.Client(trust_env=False, timeout=200)  # the first beam search has to be compiled
UTTERANCES = 60  # of the long recording
TRANSCRIPTIONS = "/v1/audio/transcriptions"


def flac(samples) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="FLAC")
    return file.getvalue()


@pytest.fixture(scope="module")
def recording(speak) -> bytes:  # noqa: F811
    return flac(speak("hold on", 2.5, "i am coming"))


@pytest.fixture(scope="module")
def long(speak) -> bytes:  # noqa: F811
    return flac(speak(*["hold on", 2.0] * UTTERANCES))


@pytest.fixture(scope="module")
def url(recognizer):
    with served({"tones": recognizer}) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    # Strict: an answer that does not fit the types is an error.
    with openai.OpenAI(
        base_url=f"{url}/v1", api_key="any", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


@pytest.fixture
def transcribe(client, recording):
    def transcribed(**options):
        return client.audio.transcriptions.create(
            file=("a.flac", recording), **({"model": "whisper-1"} | options)
        )

    return transcribed


def post(url: str, recording: bytes, data=None, **options) -> httpx.Response:
    return HTTP.post(url + TRANSCRIPTIONS, files={"file": ("a.flac", recording)}, data=data, **options)


def assert_error(answer: httpx.Response, status: int, code: str, param=None) -> str:
    """The message of an error in OpenAI's form."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert "\n" not in error["message"]
    return error["message"]


def counted(url: str, name: str, **labels: str) -> float:
    text = HTTP.get(f"{url}/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


def test_json(transcribe):
    found = transcribe()
    assert isinstance(found, Transcription)
    assert found.text == "hold on i am coming"
    assert found.usage.type == "duration" and found.usage.seconds == pytest.approx(4.66, abs=0.01)
    assert found.logprobs is None


def test_verbose_json_is_valid_under_the_strict_types(client, recording, transcribe):
    found = transcribe(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert [segment.text for segment in found.segments] == ["hold on", "i am coming"]
    assert [word.word for word in found.words] == ["hold", "on", "i", "am", "coming"]
    assert found.segments[1].start == pytest.approx(0.84 + 2.5, abs=0.1)
    assert found.language == "en" and found.duration == pytest.approx(4.66, abs=0.01)
    raw = client.audio.transcriptions.with_raw_response.create(
        file=("a.flac", recording), model="tones", response_format="verbose_json"
    )
    payload = json.loads(raw.text)
    parsed = TranscriptionVerbose.model_validate(payload, strict=True)
    assert parsed.words is None  # as OpenAI: segments unless words are asked for
    [segment, _] = payload["segments"]
    assert segment["avg_logprob"] == pytest.approx(math.log(0.9), abs=0.2)
    assert segment["compression_ratio"] == pytest.approx(7 / 15)
    assert raw.parse() == parsed


def test_words_alone(transcribe):
    found = transcribe(response_format="verbose_json", timestamp_granularities=["word"])
    assert found.segments is None and len(found.words) == 5


@pytest.mark.parametrize(
    ("format", "kind", "text"),
    [
        ("text", "text/plain", "hold on i am coming\n"),
        ("srt", "text/plain", "1\n00:00:00,"),
        ("vtt", "text/vtt", "WEBVTT\n\n00:00:00."),
    ],
)
def test_texts(client, recording, transcribe, format, kind, text):
    assert transcribe(response_format=format).startswith(text)
    raw = client.audio.transcriptions.with_raw_response.create(
        file=("a.flac", recording), model="whisper-1", response_format=format
    )
    assert raw.headers["content-type"] == f"{kind}; charset=utf-8"
    assert raw.headers["x-content-type-options"] == "nosniff"


def test_a_stream_has_a_delta_for_each_segment(transcribe):
    *deltas, done = transcribe(stream=True, include=["logprobs"])
    assert [event.delta for event in deltas] == ["hold on", " i am coming"]
    assert (done.type, done.text) == ("transcript.text.done", "hold on i am coming")
    for event in deltas:
        assert "".join(token.token for token in event.logprobs) == event.delta
    assert "".join(token.token for token in done.logprobs) == done.text


def test_a_delta_comes_before_the_recording_is_done(transcribe, recognizer, monkeypatch):
    second = threading.Event()
    encode = type(recognizer.engine).encode

    def slow_encode(self, samples):
        if len(samples) > 1.5 * RATE:  # "i am coming"
            assert second.wait(20)
        return encode(self, samples)

    monkeypatch.setattr(type(recognizer.engine), "encode", slow_encode)
    events = iter(transcribe(stream=True))
    assert next(events).delta == "hold on"
    second.set()
    assert next(events).delta == " i am coming"


def test_logprobs_are_the_logarithms_of_the_confidence(transcribe):
    found = transcribe(include=["logprobs"])
    assert "".join(token.token for token in found.logprobs) == found.text
    assert [bytes(map(int, token.bytes)).decode() for token in found.logprobs[:2]] == ["hold", " on"]
    assert all(-1 < token.logprob <= 0 for token in found.logprobs)


def test_the_asynchronous_client(url, recording):
    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
            create = client.audio.transcriptions.create
            answers = [create(file=("a.flac", recording), model="whisper-1") for _ in range(4)]
            return [answer.text for answer in await asyncio.gather(*answers)]

    # In a thread of its own, since a browser of another test may have left a loop running in this one.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(asyncio.run, run()).result() == ["hold on i am coming"] * 4


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tones"]
    assert client.models.retrieve("tones").owned_by == "hark"
    assert client.models.retrieve("whisper-1").id == "tones"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("../../etc/passwd")


@pytest.mark.parametrize(
    ("fields", "param", "part"),
    [
        ({"language": "de"}, "language", "en"),
        ({"languages[]": ["de", "fr"]}, "languages[]", "en"),
        ({"response_format": "xml"}, "response_format", "verbose_json"),
        ({"response_format": "diarized_json"}, "response_format", "verbose_json"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"temperature": "nan"}, "temperature", ""),
        ({"stream": "perhaps"}, "stream", "boolean"),
        ({"stream": "true", "response_format": "srt"}, "stream", "text"),
        ({"timestamp_granularities[]": ["word"]}, "timestamp_granularities[]", "verbose_json"),
        (
            {"timestamp_granularities[]": ["letter"], "response_format": "verbose_json"},
            "timestamp_granularities[]",
            "word",
        ),
        ({"include[]": ["logprobs"], "response_format": "text"}, "include[]", "json"),
        ({"include[]": ["everything"]}, "include[]", "logprobs"),
        ({"keywords[]": ["w"] * 101}, "keywords[]", "100"),
        ({"keywords[]": ["well", "GPT-4"]}, "keywords[]", "'GPT-4' has 4"),
        ({"prompt": "Word, " * 10_000}, "prompt", "10000"),
        ({"keywords[]": ["???"]}, "keywords[]", "no letters"),
    ],
)
def test_a_field_that_cannot_be_honoured_is_refused_by_name(url, recording, fields, param, part):
    assert part in assert_error(post(url, recording, fields), 400, "invalid_value", param)


@pytest.mark.parametrize(
    "fields",
    [
        {"language": "en-US", "model": "gpt-4o-transcribe", "temperature": "0.3"},
        {"language": "", "prompt": "", "unknown": "field"},
        {"languages[]": ["de", "en"], "model": "tones"},
        {"timestamp_granularities": "word", "response_format": "verbose_json"},  # without brackets
    ],
)
def test_what_clients_send_beside_the_file_is_accepted(url, recording, fields):
    assert post(url, recording, fields).json()["text"] == "hold on i am coming"


def test_errors_have_the_right_status(url, recording):
    missing = HTTP.post(url + TRANSCRIPTIONS, files={"sound": b"x"})
    assert_error(missing, 400, "missing_file", "file")
    text = HTTP.post(url + TRANSCRIPTIONS, files={"x": b"x"}, data={"file": "a text"})
    assert_error(text, 400, "missing_file", "file")
    assert_error(post(url, b""), 400, "unreadable_audio", "file")
    message = assert_error(post(url, b"no sound"), 400, "unreadable_audio", "file")
    assert message.startswith("The file ")
    assert "tones" in assert_error(post(url, recording, {"model": "large"}), 404, "model_not_found", "model")
    for content in ({"json": {"file": "x"}}, {"data": {"file": "x"}}, {"content": b"x"}):
        assert_error(HTTP.post(url + TRANSCRIPTIONS, **content), 415, "not_a_form")
    assert_error(HTTP.get(f"{url}/v1/nothing"), 404, "not_found")
    wrong = HTTP.get(url + TRANSCRIPTIONS)
    assert_error(wrong, 405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


def test_the_client_raises_its_own_errors(client, transcribe):
    with pytest.raises(openai.NotFoundError, match="tones") as error:
        transcribe(model="large")
    assert (error.value.code, error.value.param) == ("model_not_found", "model")
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="no audio") as error:
            client.audio.transcriptions.create(file=b"no sound" * 100, model="tones", stream=stream)
        assert error.value.code == "unreadable_audio"


def test_a_bug_is_an_error_in_json_and_in_the_log(url, recording, recognizer, monkeypatch, caplog):
    def broken(self, samples):
        raise RuntimeError("of the engine")

    monkeypatch.setattr(type(recognizer.engine), "encode", broken)
    for fields in ({}, {"stream": "true"}):
        message = assert_error(post(url, recording, fields), 500, "internal_error")
        assert "of the engine" not in message
        wait_until(lambda: "RuntimeError: of the engine" in caplog.text)
        caplog.clear()


def test_an_error_in_a_stream_is_an_event(url, recording, recognizer, monkeypatch, transcribe, caplog):
    encode = type(recognizer.engine).encode

    def broken(self, samples):
        if len(samples) > 1.5 * RATE:
            raise RuntimeError("of the engine")
        return encode(self, samples)

    monkeypatch.setattr(type(recognizer.engine), "encode", broken)
    events = iter(transcribe(stream=True))
    assert next(events).delta == "hold on"
    with pytest.raises(openai.APIError, match="went wrong"):
        next(events)
    wait_until(lambda: "RuntimeError: of the engine" in caplog.text)


def test_the_key_is_needed_for_v1_only(recognizer, recording):
    with served({"tones": recognizer}, api_key="schlüssel 7") as url:
        for header in (None, "", "Bearer", "Bearer wrong", "Basic schlüssel 7", b"Bearer \xff\xfe"):
            headers = {} if header is None else {"Authorization": header}
            if isinstance(header, str):
                headers = {"Authorization": header.encode()}
            for path in ("/v1/models", "/v1/models/tones"):
                answer = HTTP.get(url + path, headers=headers)
                assert_error(answer, 401, "invalid_api_key")
                assert answer.headers["www-authenticate"] == "Bearer"
            assert_error(post(url, recording, headers=headers), 401, "invalid_api_key")
        right = {"Authorization": "Bearer schlüssel 7".encode()}
        assert post(url, recording, headers=right).status_code == 200
        assert HTTP.get(f"{url}/healthz").json()["status"] == "ok"
        with (
            openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.models.list()


def test_settings_come_from_the_environment():
    assert Settings.from_environment({}) == Settings()
    given = {
        "HARK_API_KEY": "k",
        "HARK_AT_ONCE": "2",
        "HARK_CORS_ORIGINS": "https://a.example, https://b.example",
    }
    found = Settings.from_environment(given)
    assert (found.api_key, found.at_once) == ("k", 2)
    assert found.cors_origins == ("https://a.example", "https://b.example")
    for name, text in {"HARK_API_KEY": " ", "HARK_AT_ONCE": "0", "HARK_MAX_MEGABYTES": "1e3"}.items():
        with pytest.raises(ValueError, match=name):
            Settings.from_environment({name: text})


def test_uploads_that_are_too_large_are_refused_while_they_are_read(recognizer, recording):
    with served({"tones": recognizer}, max_megabytes=1) as url:
        assert post(url, recording).status_code == 200
        large = b"x" * 1_200_000
        assert "1 MB" in assert_error(post(url, large), 413, "file_too_large", "file")
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
        with client, pytest.raises(openai.APIStatusError) as error:
            client.audio.transcriptions.create(file=large, model="tones")
        assert error.value.status_code == 413

        sent = 0

        def endless():  # chunked: no length is stated
            nonlocal sent
            yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            while sent < 200_000_000:
                sent += 100_000
                yield b"x" * 100_000

        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = HTTP.post(url + TRANSCRIPTIONS, content=endless(), headers=headers)
        assert_error(answer, 413, "file_too_large", "file")
        assert sent < 50_000_000


def test_recordings_that_are_too_long_are_refused(recognizer):
    with served({"tones": recognizer}, max_seconds=5) as url:
        assert post(url, flac(np.zeros(5 * RATE))).status_code == 200
        silence = flac(np.zeros(6 * RATE))
        for fields in ({}, {"stream": "true"}):
            assert "5 s" in assert_error(post(url, silence, fields), 400, "audio_too_long", "file")


class Gate:
    """Holds an engine's work while it is closed, and counts what is asked of it."""

    def __init__(self, engine, monkeypatch):
        self.open, self.utterances = threading.Event(), 0
        encode = type(engine).encode

        def gated(engine, samples):
            self.utterances += 1
            assert self.open.wait(20)
            return encode(engine, samples)

        monkeypatch.setattr(type(engine), "encode", gated)


def test_who_waits_too_long_is_told_when_to_come_again(recognizer, recording, monkeypatch):
    gate = Gate(recognizer.engine, monkeypatch)
    with served({"tones": recognizer}, at_once=1, max_wait_seconds=1) as url:
        answers = []
        first = threading.Thread(target=lambda: answers.append(post(url, recording)))
        first.start()
        wait_until(lambda: counted(url, "hark_recognising") == 1)
        busy = post(url, recording)
        assert_error(busy, 429, "rate_limit_exceeded")
        assert int(busy.headers["retry-after"]) > 0
        gate.open.set()
        first.join(20)
        assert answers[0].status_code == 200
        assert counted(url, "hark_waiting") == counted(url, "hark_recognising") == 0
        assert post(url, recording).status_code == 200


def test_a_short_recording_does_not_wait_for_a_long_one(recognizer, recording, long):
    with served({"tones": recognizer}) as url:
        ended = {}

        def send(name, sound):
            ended[name] = (post(url, sound).json()["text"], time.monotonic())

        threads = [threading.Thread(target=send, args=["long", long])]
        threads[0].start()
        wait_until(lambda: counted(url, "hark_recognising") == 1)
        threads += [threading.Thread(target=send, args=[name, recording]) for name in ("short", "other")]
        for thread in threads[1:]:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert ended["long"][0] == " ".join(["hold on"] * UTTERANCES)
        assert max(ended["short"][1], ended["other"][1]) < ended["long"][1]


@pytest.mark.parametrize("stream", ["false", "true"])
def test_work_ends_when_its_client_goes(recognizer, monkeypatch, long, stream):
    gate = Gate(recognizer.engine, monkeypatch)
    with served({"tones": recognizer}) as url:
        with pytest.raises(httpx.ReadTimeout):
            post(url, long, {"stream": stream}, timeout=1.0)
        time.sleep(0.3)  # until the server has noticed
        gate.open.set()
        wait_until(lambda: counted(url, "hark_recognising") == 0)
        assert gate.utterances < UTTERANCES / 2
        assert counted(url, "hark_errors_total", code="client_gone") == 1


def test_silence_ends_when_its_client_goes(recognizer, monkeypatch):
    """Of silence no utterance comes, between which the work could end."""
    read, segments = [], recognizer.segments

    def watched(source, *, reading, **options):
        return segments(source, reading=lambda seconds: (read.append(seconds), reading(seconds)), **options)

    monkeypatch.setattr(recognizer, "segments", watched)
    with served({"tones": recognizer}) as url:
        with pytest.raises(httpx.ReadTimeout):
            post(url, flac(np.zeros(3600 * RATE)), timeout=1.0)
        wait_until(lambda: read and counted(url, "hark_recognising") == 0)
        assert read[-1] < 3600


def test_silence_holds_up_nobody(recognizer, recording):
    with served({"tones": recognizer}, max_wait_seconds=10) as url:
        silence = flac(np.zeros(3600 * RATE))
        with ThreadPoolExecutor(3) as pool:
            silent = [pool.submit(post, url, silence, timeout=5) for _ in range(3)]
            wait_until(lambda: counted(url, "hark_recognising") == 3)
            assert post(url, recording).status_code == 200
            assert not any(answer.done() for answer in silent)
            assert all(isinstance(answer.exception(), httpx.ReadTimeout) for answer in silent)


def test_metrics_count_requests_sound_and_errors(url, recording):
    def now() -> list[float]:
        return [
            counted(url, "hark_requests_total", route=TRANSCRIPTIONS, status="200"),
            counted(url, "hark_sound_seconds_total"),
            counted(url, "hark_real_time_factor_count"),
            counted(url, "hark_errors_total", code="unreadable_audio"),
        ]

    before = now()
    post(url, recording)
    post(url, b"no sound")
    assert np.subtract(now(), before) == pytest.approx([1, 4.66, 1, 1], abs=0.01)
    text = HTTP.get(f"{url}/metrics").text
    HTTP.get(f"{url}/v1/{'x' * 50}")
    assert "xxxx" not in text


def test_the_log_has_no_content(url, recording, caplog):
    caplog.set_level(logging.INFO, logger="hark")
    files = {"file": ("secret-name.flac", recording)}
    HTTP.post(url + TRANSCRIPTIONS, files=files, data={"prompt": "Secretword"})
    HTTP.post(url + TRANSCRIPTIONS, files={"file": ("secret-name", b"?")})
    HTTP.get(f"{url}/v1/models/secret-name?secret=word")
    wait_until(lambda: "404" in caplog.text)
    lines = [record.getMessage() for record in caplog.records if record.name == "hark"]
    assert [line.split()[:3] for line in lines] == [
        ["POST", TRANSCRIPTIONS, "200"],
        ["POST", TRANSCRIPTIONS, "400"],
        ["GET", "/v1/models/{model:path}", "404"],
    ]
    assert "4.7 s of sound" in lines[0]
    assert "secret" not in caplog.text.lower() and "hold on" not in caplog.text


def test_scripts_of_other_origins_are_not_answered_unless_allowed(url, recognizer):
    origin = {"Origin": "https://a.example"}
    assert "access-control-allow-origin" not in HTTP.get(f"{url}/v1/models", headers=origin).headers
    with served({"tones": recognizer}, cors_origins=("https://a.example",)) as allowed:
        answer = HTTP.get(f"{allowed}/v1/models", headers=origin)
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        other = HTTP.get(f"{allowed}/v1/models", headers={"Origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers


def test_openapi_describes_the_form_and_no_page_loads_scripts_from_elsewhere(url):
    described = HTTP.get(f"{url}/openapi.json").json()
    body = described["paths"][TRANSCRIPTIONS]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert body["schema"]["required"] == ["file"]
    assert {"model", "prompt", "stream", "timestamp_granularities[]"} <= body["schema"]["properties"].keys()
    assert {"/healthz", "/metrics", "/v1/models"} <= described["paths"].keys()
    for path in ("/docs", "/redoc"):
        assert HTTP.get(url + path).status_code == 404


def test_words_of_the_prompt_are_expected(url, recording, monkeypatch):
    asked = []

    def decode(bundle, engine, name, hotwords, n_best):
        asked.append(hotwords)
        return decode_with(bundle, engine, name, hotwords, n_best)

    monkeypatch.setattr("asr.recognizer.decode_with", decode)
    post(url, recording, {"prompt": "Ann Quillan, GPT-4, ?, etcd", "keywords[]": ["Hark"]})
    post(url, recording)
    assert [list(words) for words in asked] == [["Hark", "Ann Quillan", "etcd"], []]


@pytest.mark.parametrize(
    ("prompt", "terms"),
    [
        ("Ann Quillan, Kubernetes; etcd\nGPT-4.", ["Ann Quillan", "Kubernetes", "etcd", "GPT-4"]),
        (
            "The talk is by Ann Quillan, who wrote etcd for Kubernetes. Questions follow.",
            ["Ann Quillan", "Kubernetes"],
        ),
        ("Ann Quillan speaks about a database called FoundationDB 7.", ["Ann Quillan", "FoundationDB"]),
        ("Please write this down with capitals and with punctuation.", []),
        ("yesterday I said that I would come", []),
        ("", []),
        (" , ;\n", []),
    ],
)
def test_terms_of_a_prompt(prompt, terms):
    assert terms_of(prompt) == terms


@settings(max_examples=50)
@given(st.text(max_size=300))
def test_terms_are_in_the_prompt(prompt):
    for term in terms_of(prompt):
        assert any(map(str.isalnum, term)) and all(word in prompt for word in term.split())


def test_long_terms_are_left_out(url, recording):
    assert post(url, recording, {"prompt": "x" * (MAX_HOTWORD_CHARACTERS + 1)}).status_code == 200
    assert post(url, recording, {"prompt": "Word, " * 1_000}).status_code == 200
