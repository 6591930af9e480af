"""The page's HTTP API."""

import httpx
import numpy as np
import pytest
import soundfile
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from asr.audio import SAMPLE_RATE
from asr.transcript import Transcript
from asr.turns import Turns
from asr.web.page import build_page, serving_options
from tests.loudness_recognizer import OTHERS, SPOKEN, LoudnessRecognizer


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        patch.setenv("NO_PROXY", "127.0.0.1")
        large = LoudnessRecognizer("large", has_language_model=True)
        page = build_page({"tiny": LoudnessRecognizer(), "large": large}, Turns(1))
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **serving_options())
        yield Client(url, verbose=False)
        page.close(verbose=False)


@pytest.fixture
def recording(tmp_path):
    """3 s of noise."""
    path = tmp_path / "noise.flac"
    soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, 3 * SAMPLE_RATE), SAMPLE_RATE)
    return path


def ask(client, path, **options):
    return client.predict(handle_file(path), api_name="/transcribe", **options)


def test_api_answers_in_the_form_of_verbose_json(client, recording):
    answer = ask(client, recording)
    assert answer.keys() == Transcript((), "english", 0.0, "tiny").to_dict().keys()
    assert answer["text"] == " ".join(2 * SPOKEN)
    assert answer["duration"] == 3.0
    assert answer["model"] == "tiny"
    assert answer["words"][1] == {"word": "quick", "start": 0.4, "end": 0.72, "confidence": 0.95}


def test_api_tells_of_damage_as_the_command_line_does(client, recording, tmp_path):
    half = tmp_path / "half.flac"
    half.write_bytes(recording.read_bytes()[: recording.stat().st_size // 2])
    [warning] = ask(client, half)["warnings"]
    assert warning.startswith("'half.flac' is truncated: its header states 3.0 s")


def test_api_takes_model_decoder_and_hot_words(client, recording):
    answer = ask(client, recording, model="large", decoder="beam", hotwords="Quillan, Mantelish")
    assert answer["model"] == "large"
    assert answer["segments"][0]["alternatives"] == list(OTHERS)


def test_api_refuses_hot_words_with_the_greedy_decoder(client, recording):
    with pytest.raises(AppError, match="knows no hot words"):
        ask(client, recording, decoder="greedy", hotwords="Quillan")


def test_api_requires_a_recording(client):
    with pytest.raises(AppError, match="pass an audio file as sound"):
        client.predict(None, api_name="/transcribe")


def test_api_names_a_bad_file_without_its_path_on_the_server(client, tmp_path):
    path = tmp_path / "letter.wav"
    path.write_text("Dear Sir or Madam")
    with pytest.raises(AppError) as error:
        ask(client, path)
    message = str(error.value)
    assert "letter.wav" in message
    assert "uploads" not in message
    assert "\n" not in message


def test_api_reads_only_what_was_uploaded(client, recording):
    # Over plain HTTP, since gradio_client would upload the file.
    sound = {"path": str(recording), "meta": {"_type": "gradio.FileData"}}
    call = f"{client.src}gradio_api/call/transcribe"
    event = httpx.post(call, json={"data": [sound, "tiny", "greedy", ""]}).json()["event_id"]
    answer = httpx.get(f"{call}/{event}").text
    assert "event: error" in answer
    assert "quick" not in answer


def test_only_transcribe_is_public_and_it_is_documented(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/transcribe"]
    assert "verbose_json" in endpoints["/transcribe"]["description"]
    assert [parameter["parameter_name"] for parameter in endpoints["/transcribe"]["parameters"]] == [
        "sound",
        "model",
        "decoder",
        "hotwords",
    ]


def test_nothing_is_reported_or_recorded(client):
    assert client.config["analytics_enabled"] is False
    assert client.config["run_history"] is False


@pytest.mark.parametrize(("language_model", "shown"), [(False, False), (True, True)])
def test_decoder_and_hot_words_are_offered_only_with_a_language_model(language_model, shown):
    page = build_page({"tiny": LoudnessRecognizer(has_language_model=language_model)}, Turns(1))
    offered = {
        component["props"].get("label"): component["props"].get("visible")
        for component in page.get_config_file()["components"]
    }
    assert offered["Decoding"] is offered["Names and terms to expect"] is shown
    assert offered["Model"] is False  # there is only one


def test_models_are_offered_with_their_error_rates():
    rated = LoudnessRecognizer("rated")
    rated.bundle.config["wer"] = {"clean": 5.9, "noisy": 24.9}
    page = build_page({"rated": rated, "tiny": LoudnessRecognizer()}, Turns(1))
    [model] = [one for one in page.get_config_file()["components"] if one["props"].get("label") == "Model"]
    labels = [label for label, _ in model["props"]["choices"]]
    assert labels == ["rated: WER 6 to 25 %", "tiny: WER not stated"]
