"""training/label.py: which texts of two models are kept, and whole folders."""

import json
import shutil

import pytest

from asr.bundle import Bundle
from training.commands import main
from training.label import MAX_SECONDS, Texts, doubt

TOKENIZER = Bundle.load("english").tokenizer


@pytest.mark.parametrize(
    ("teacher", "model", "seconds", "reason"),
    [
        ("The sun rose over the hills.", "the sun rose over the hills", 2.5, None),
        ("The sun rose over the hills.", "The sun rose over a hill.", 2.5, None),  # two of six
        ("The sun rose over the hills.", "The son rows over a hill.", 2.5, "the models do not agree"),
        ("The sun rose over the hills.", "", 2.5, "the models do not agree"),
        ("The sun rose.", "The sun rose and rose.", 1.5, "the models do not agree"),  # two more
        (
            "It rose in 1984.",
            "It rose in 1984.",
            2.0,
            "digits or signs, of which it is not known how they are spoken",
        ),
        ("Yes.", "Yes.", 0.5, "fewer than 2 words"),
        ("", "", 1.0, "fewer than 2 words"),
        ("The sun.", "The sun.", 2.3, None),
        ("The sun.", "The sun.", 2.5, "more than 1.2 s a word"),
    ],
)
def test_a_text_is_kept_where_both_models_agree_and_it_fits_the_sound(teacher, model, seconds, reason):
    assert doubt(Texts(teacher, model, seconds), TOKENIZER) == reason


def test_a_folder_becomes_a_manifest_that_names_the_teacher(shared_data, tmp_path, capsys):
    clips = tmp_path / "clips"
    rows = [json.loads(line) for line in (shared_data / "dev-read.jsonl").read_text().splitlines()]
    chosen = sorted(rows, key=lambda row: row["duration"])[3:6]
    for row in chosen:
        sound = shared_data / row["audio_filepath"]
        (clips / row["speaker"]).mkdir(parents=True, exist_ok=True)
        shutil.copy(sound, clips / row["speaker"])
    (clips / "broken.mp3").write_text("no sound")
    # Its own teacher: with a larger one it works in the same way.
    assert main(["label", str(clips), "--teacher", "english", "--output", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "broken.mp3" in err and len(err.strip().splitlines()) == 1
    labelled = [json.loads(line) for line in (tmp_path / "labelled.jsonl").read_text().splitlines()]
    assert f"{len(labelled)} of 4 utterances" in out and len(labelled) >= 2
    for row in labelled:
        assert row["text"] == TOKENIZER.normalize(row["text_cased"]) and row["text_cased_from"] == "english"
        assert row["speaker"] in row["audio_filepath"] and 0 < row["duration"] < MAX_SECONDS
        assert (tmp_path / row["audio_filepath"]).is_file()


def test_an_empty_folder_is_refused(tmp_path, capsys):
    assert main(["label", str(tmp_path), "--teacher", "english", "--output", str(tmp_path / "out")]) == 2
    assert "no recordings" in capsys.readouterr().err
