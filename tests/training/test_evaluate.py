import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio import SAMPLE_RATE
from training.commands import main
from training.manifest import Entry, write_manifest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def manifest(tmp_path) -> Path:
    """Three utterances of two speakers, with sound."""
    rng = np.random.default_rng(0)
    entries = []
    for number, text in enumerate(["hold on", "it's me", "who's there"]):
        path = tmp_path / "audio" / f"u{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.1 * rng.normal(size=(1 + number) * SAMPLE_RATE), SAMPLE_RATE)
        fields = {"gender": "fm"[number % 2]}
        entries.append(Entry(f"audio/u{number}", path, text, 1.0 + number, 0.0, f"s{number % 2}", fields))
    write_manifest(tmp_path / "dev.jsonl", entries)
    return tmp_path / "dev.jsonl"


def hypotheses(path: Path, **texts: str) -> Path:
    path.write_text("".join(json.dumps({"id": id, "text": text}) + "\n" for id, text in texts.items()))
    return path


def run(*arguments: str | Path) -> int:
    return main(["evaluate", *map(str, arguments)])


def test_several_files_of_other_recognisers(manifest, tmp_path, capsys):
    first = hypotheses(tmp_path / "first.jsonl", u2="who's there", u0="hold on", u1="it's me")
    second = tmp_path / "second.trn"
    second.write_text("hold in (u0)\nwhat (elsewhere)\nit's me (u1)\nagain (u1)\n")
    output = tmp_path / "report"
    assert run(manifest, "--hypotheses", first, second, "--by", "gender", "--output", output) == 0
    said = capsys.readouterr().out
    assert re.search(r"dev +basic +first +clean +0\.00 .*\[0 / 6, 0 ins, 0 del, 0 sub\]", said)
    assert re.search(r"dev +basic +second +clean +50\.00 .*\[3 / 6, 0 ins, 2 del, 1 sub\]", said)
    assert (
        "1 missing hypotheses" in said
        and "1 that no reference asks for" in said
        and "1 ids given again" in said
    )
    results = json.loads((output / "results.json").read_text("utf-8"))
    assert results["header"]["command"].startswith("hark evaluate ")
    assert {"commit", "versions", "hardware"} <= results["header"].keys()
    assert [row["group"] for row in results["groups"]["gender"]] == ["f"] * 4 + ["m"] * 4
    assert {path.name for path in output.iterdir()} == {
        "report.html",
        "report.md",
        "results.json",
        "utterances.jsonl",
        "hypotheses",
    }
    assert "data:audio/" in (output / "report.html").read_text("utf-8")


def test_capitals_and_punctuation(manifest, tmp_path, capsys):
    recognised = hypotheses(tmp_path / "h.jsonl", u0="Hold on.", u1="it's me", u2="Who's there?")
    assert run(manifest, "--hypotheses", recognised, "--cased") == 2
    assert "--cased needs references with capitals and punctuation" in capsys.readouterr().err
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows[0]["text_cased"], rows[2]["text_cased"] = "Hold on.", "Who’s there?"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(manifest, "--hypotheses", recognised, "--cased") == 0
    said = capsys.readouterr().out
    assert "2 utterances; 1 without text_cased are left out" in said
    assert re.search(r"dev +h +clean +0\.00 .*\[0 / 4,", said)
    assert re.search(r"h +clean +sentence end +100\.0 \(.*\) +100\.0 \(.*\) +100\.0 \(.*\) +2 +2 +2", said)
    rows[1]["text_cased"] = 7
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(manifest, "--hypotheses", recognised) == 2
    assert '"text_cased" is 7; give the text as it is written' in capsys.readouterr().err


def test_normalisers_of_choice_in_their_order(manifest, tmp_path):
    recognised = hypotheses(tmp_path / "h.jsonl", u0="Hold on", u1="its me", u2="who is there")
    arguments = [manifest, "--hypotheses", recognised, "--normalizer", "none", "english", "none"]
    assert run(*arguments, "--output", tmp_path / "report") == 0
    results = json.loads((tmp_path / "report/results.json").read_text("utf-8"))
    found = [(row["normalizer"], row["counts"]["errors"]) for row in results["scores"]]
    assert found == [("none", 4), ("english", 2)]  # of english: "it is" for "its"


def test_two_runs_differ_in_the_date_only(manifest, tmp_path):
    recognised = hypotheses(tmp_path / "h.jsonl", u0="hold in", u1="its me")
    texts = []
    for _ in range(2):
        assert run(manifest, "--hypotheses", recognised, "--output", tmp_path / "report") == 0
        results = json.loads((tmp_path / "report/results.json").read_text("utf-8"))
        date = results["measured"].pop("date")
        page = (tmp_path / "report/report.html").read_text("utf-8")
        texts.append(
            (json.dumps(results), page.replace(date, ""), (tmp_path / "report/utterances.jsonl").read_text())
        )
    assert texts[0] == texts[1]


def test_what_a_report_keeps_is_scored_alike_again(manifest, tmp_path):
    lines = [
        {"id": f"audio/u{i}", "condition": condition, "text": text}
        for condition, texts in {"clean": ["Hold on!", "it's me"], "noise:10": ["hold", "its me"]}.items()
        for i, text in enumerate(texts)
    ]
    lines[0]["words"] = [{"word": "Hold", "start": 0.1, "end": 0.3, "confidence": 0.5}]
    path = tmp_path / "peer, beam 1.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    assert run(manifest, "--hypotheses", path, "--output", tmp_path / "first") == 0
    kept = tmp_path / "first/hypotheses/peer, beam 1.jsonl"
    assert [json.loads(line) for line in kept.read_text("utf-8").splitlines()] == lines
    assert run(manifest, "--hypotheses", kept, "--output", tmp_path / "second") == 0
    first, second = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("first", "second")
    )
    assert [row["condition"] for row in first["scores"]] == ["clean", "noise:10"] * 2
    assert first["scores"] == second["scores"]


def test_missing_audio_of_a_hypothesis_file_is_scored_all_the_same(manifest, tmp_path, capsys):
    (tmp_path / "audio/u1.wav").unlink()
    recognised = hypotheses(tmp_path / "h.jsonl", u0="hold on", u1="it's me", u2="who's there")
    assert run(manifest, "--hypotheses", recognised, "--output", tmp_path / "report") == 0
    assert "[0 / 6," in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--hypotheses", "none.jsonl"], "none.jsonl: no such manifest"),
        ([], "give --model or --hypotheses"),
        (["--hypotheses", "h.jsonl", "--by", "age"], "no reference has a field 'age'; there are: gender"),
        (["--hypotheses", "h.jsonl", "sub/h.jsonl"], "2 systems are called h"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--model", "english", "--noise", "none.jsonl"], "none.jsonl: no such manifest"),
    ],
)
def test_a_wrong_call_is_one_line(manifest, tmp_path, monkeypatch, capsys, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    hypotheses(Path("h.jsonl"), u0="x")
    hypotheses(Path("sub/h.jsonl"), u0="x")
    assert run(manifest, *arguments) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1


def test_the_same_id_in_two_manifests_is_refused(manifest, tmp_path, capsys):
    recognised = hypotheses(tmp_path / "h.jsonl", u0="x")
    assert run(manifest, manifest, "--hypotheses", recognised) == 2
    assert "given 2 times" in capsys.readouterr().err


def test_namesakes_are_sets_of_their_own(manifest, tmp_path, capsys):
    texts = {"a": "hold on", "b": "it's me"}
    for name in texts:
        (tmp_path / name).mkdir()
        entry = Entry("u", tmp_path / name / "u.wav", texts[name], 1.0)
        write_manifest(tmp_path / name / "dev.jsonl", [entry])
    recognised = hypotheses(tmp_path / "h.jsonl", **{"a/dev/u": "hold on", "b/dev/u": "it me"})
    assert run(tmp_path / "a/dev.jsonl", tmp_path / "b/dev.jsonl", "--hypotheses", recognised) == 0
    said = capsys.readouterr().out
    assert re.search(r"a/dev +english +h +clean +0\.00 .*\[0 / 2,", said)
    assert re.search(r"b/dev +basic +h +clean +50\.00 .*\[1 / 2,", said)
    (tmp_path / "dev2.jsonl").write_text(manifest.read_text())
    assert run(manifest, tmp_path / "dev2.jsonl", "--hypotheses", recognised) == 2
    assert "u0.wav is 2 times in the references" in capsys.readouterr().err


def test_references_that_lose_all_their_letters_are_named_and_not_scored(manifest, tmp_path, capsys):
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows[0]["text"], rows[1]["text"] = "привет", "room 101"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recognised = hypotheses(tmp_path / "h.jsonl", u0="x", u1="room", u2="who's there")
    assert run(manifest, "--hypotheses", recognised) == 1
    captured = capsys.readouterr()
    assert "2 of 3 utterances scored" in captured.out
    assert "not scored: 1, such as audio/u0: nothing is left of" in captured.out
    assert "not scored: audio/u0: nothing is left of 'привет'" in captured.err
    assert "1 references, such as 1 0 of audio/u1" in captured.err
    assert run(manifest, "--hypotheses", recognised, "--normalizer", "english") == 0
    capsys.readouterr()
    manifest.write_text(json.dumps(rows[0]) + "\n")
    assert run(manifest, "--hypotheses", recognised) == 2
    assert "no utterance is left to score" in capsys.readouterr().err


def test_hypotheses_of_another_folder_pair_by_their_sound(manifest, tmp_path, capsys):
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    (tmp_path / "theirs").mkdir()
    path = tmp_path / "theirs/h.jsonl"
    for prefix in (f"{tmp_path}/", "../", "", "./"):  # NeMo writes absolute paths
        lines = [{"audio_filepath": prefix + row["audio_filepath"], "pred_text": row["text"]} for row in rows]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert run(manifest, "--hypotheses", path) == 0
        assert "[0 / 6," in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "holds no hypotheses"),
        ('{"id": "x", "text": ""}', "none of its 1"),
    ],
)
def test_hypotheses_of_which_none_pairs_are_refused(manifest, tmp_path, capsys, content, complaint):
    (tmp_path / "h.jsonl").write_text(content)
    assert run(manifest, "--hypotheses", tmp_path / "h.jsonl") == 2
    said = capsys.readouterr()
    assert complaint in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_a_folder_that_cannot_be_written_is_found_first(manifest, tmp_path, capsys):
    recognised = hypotheses(tmp_path / "h.jsonl", u0="x")
    assert run(manifest, "--hypotheses", recognised, "--output", recognised) == 2
    said = capsys.readouterr()
    assert "h.jsonl" in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_stm_and_ctm(tmp_path, capsys):
    (tmp_path / "r.stm").write_text(
        "talk 1 anna 0 2 hold on\ntalk 1 anna 2 3 ignore_time_segment_in_scoring\ntalk 1 bert 3 5 it's me\n"
    )
    (tmp_path / "h.ctm").write_text(
        "talk 1 0.1 0.2 hold\ntalk 1 0.5 0.2 on\ntalk 1 2.2 0.2 noise\ntalk 1 3.5 0.2 me\n"
    )
    assert run(tmp_path / "r.stm", "--hypotheses", tmp_path / "h.ctm") == 0
    said = capsys.readouterr().out
    assert "2 of 3 utterances scored" in said
    assert "[1 / 4, 0 ins, 1 del, 0 sub]" in said


def test_scoring_a_file_loads_no_tensorflow(manifest, tmp_path):
    recognised = hypotheses(tmp_path / "h.jsonl", u0="hold on")
    code = (
        "import sys; from training.commands import main; "
        f"main(['evaluate', {str(manifest)!r}, '--hypotheses', {str(recognised)!r}]); "
        "assert not {'tensorflow', 'keras', 'gradio'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A tiny untrained model: its texts are nonsense, how it is run is not."""
    keras = pytest.importorskip("keras")
    from asr.bundle import save_bundle
    from asr.model import SpeechModel
    from asr.tokenizer import Tokenizer

    keras.utils.set_random_seed(0)
    units = Tokenizer.characters()
    model = SpeechModel(units.size, [{"type": "recurrent", "width": 8, "stack": 4}], {"mels": 80}).build_for()
    return save_bundle(tmp_path_factory.mktemp("models") / "tiny", model, units)


def test_a_model_under_conditions(manifest, bundle, tmp_path, capsys):
    (tmp_path / "audio/u1.wav").unlink()
    conditions = "clean,gain:-20,noise:10"
    arguments = [manifest, "--model", bundle, "--decoder", "greedy", "--conditions", conditions]
    # The sound of the tests is noise already; any will do to mix in.
    noise = tmp_path / "noise.jsonl"
    write_manifest(noise, [Entry("n", tmp_path / "audio/u0.wav", "", 1.0)])
    assert run(*arguments, "--noise", noise, "--output", tmp_path / "report") == 1
    assert "u1.wav" in capsys.readouterr().err
    results = json.loads((tmp_path / "report/results.json").read_text("utf-8"))
    assert [row["id"] for row in results["references"]["not_scored"]] == ["audio/u1"]
    assert [row["condition"] for row in results["scores"]] == 2 * conditions.split(",")
    assert {row["normalizer"] for row in results["scores"]} == {"english", "basic"}
    assert {row["system"] for row in results["scores"]} == {"tiny greedy"}
    words = {row["normalizer"]: row["counts"]["words"] for row in results["scores"]}
    assert words == {"english": 5, "basic": 4}  # "who's" is two words in Whisper's normaliser
    [speed] = results["measured"]["speed"]
    assert speed["speech_seconds"] == 4.0
    assert speed["real_time_factor"] > 0
    assert speed["cold_start_seconds"] > 0
    assert speed["peak_memory_mb"] > 50


def test_a_misspelt_condition_is_found_before_anything_is_heard(manifest, bundle, capsys):
    assert run(manifest, "--model", bundle, "--conditions", "clean,echo") == 2
    assert "condition 'echo' is unknown" in capsys.readouterr().err
