"""The page's own protocol of live text."""

import numpy as np
import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from asr.audio import SAMPLE_RATE
from asr.serve.app import build_api
from asr.serve.metrics import Metrics
from asr.serve.settings import Settings
from asr.turns import Turns
from tests.asr.conftest import speak  # noqa: F401 (a fixture)

WANTED = {"rate": SAMPLE_RATE, "model": "english", "decoder": "greedy", "hotwords": ""}
OWN = {"Origin": "http://testserver"}


@pytest.fixture
def connect(recognizer):
    """Opens the WebSocket of a server with these settings."""

    def connect(headers=OWN, **settings):
        api = build_api({"english": recognizer}, Settings(**settings), Turns(1), Metrics(), with_page=True)
        return TestClient(api).websocket_connect("/live", headers=headers)

    return connect


def pcm(samples):
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def test_partials_and_segments_come_in_the_form_of_the_page(connect, speak):  # noqa: F811
    with connect() as socket:
        socket.send_json(WANTED)
        assert socket.receive_json()["transcript"]["segments"] == []
        socket.send_bytes(pcm(np.concatenate([speak("hold on", 3.0), np.zeros(SAMPLE_RATE, np.float32)])))
        messages = [socket.receive_json()]
        while "segment" not in messages[-1]:
            messages.append(socket.receive_json())
    *partials, last = messages
    assert partials and all(set(one) == {"partial", "stable_length", "start"} for one in partials)
    assert [word["text"] for word in last["segment"]["words"]] == ["hold", "on"]
    assert {"start", "end", "channel", "speaker", "alternatives", "words"} == set(last["segment"])


@pytest.mark.parametrize(
    "messages, reason",
    [
        ([b"\0\0"], "The message: Invalid JSON"),
        (['{"rate": 16000}'], "model: Field required."),
        ([{**WANTED, "rate": 0}, b"\0\0"], "Not readable: "),
        ([{**WANTED, "model": "french"}], "There is no such model"),
        ([{**WANTED, "decoder": "joint"}, b"\0\0"], "tones has no attention decoder"),
        ([{**WANTED, "hotwords": "Ann"}, b"\0\0"], "hot words"),
        ([WANTED, "more"], "After the first message there is only sound."),
    ],
)
def test_what_cannot_be_is_said_in_the_close_frame(connect, messages, reason):
    with connect() as socket:
        for message in messages:
            match message:
                case bytes():
                    socket.send_bytes(message)
                case str():
                    socket.send_text(message)
                case _:
                    socket.send_json(message)
        with pytest.raises(WebSocketDisconnect) as closed:
            while True:
                socket.receive_json()
    assert closed.value.code in (1007, 1008)
    assert reason in closed.value.reason


@pytest.mark.parametrize("origin", [None, "http://elsewhere.example", "http://testserver:81"])
def test_only_the_own_page_connects(connect, origin):
    headers = {} if origin is None else {"Origin": origin}
    with pytest.raises(WebSocketDenialResponse) as denied, connect(headers):
        pass
    assert denied.value.status_code == 403


def test_the_page_needs_no_key(connect):
    with connect(api_key="secret") as socket:
        socket.send_json(WANTED)
        assert "transcript" in socket.receive_json()
