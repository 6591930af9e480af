"""The command `hark`: what it offers, how fast, and how it refuses."""

import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import asr
from training.commands import main, without_startup_log

ROOT = Path(__file__).parents[2]
VERBS = [
    ["transcribe"],
    ["stream"],
    ["align"],
    ["bulk"],
    ["models"],
    ["serve"],
    ["train"],
    ["finetune"],
    ["label"],
    ["export"],
    ["calibrate"],
    ["tune-decoder"],
    ["language-model"],
    ["language-model", "ngram"],
    ["language-model", "recurrent"],
    ["language-model", "convert"],
    ["language-model", "perplexity"],
    ["import-whisper"],
    ["average"],
    ["prepare"],
    ["evaluate"],
    ["benchmark"],
    ["benchmark", "bulk"],
    ["benchmark", "hotwords"],
    ["benchmark", "peers"],
    ["benchmark", "sequence-models"],
    ["benchmark", "server"],
    ["benchmark", "streaming"],
]
HEAVY = {"tensorflow", "keras", "jax", "gradio", "librosa", "numba", "scipy", "onnxruntime", "rich", "numpy"}
HARK = "import sys; from training.commands import main; sys.exit(main())"


def hark(*arguments, code=HARK, **options):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def refused(capsys, *arguments) -> str:
    """The one line that a wrong call gets."""
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    [line] = capsys.readouterr().err.splitlines()
    assert code == 2
    assert line.startswith("error: ")
    return line


def test_the_entry_point_is_this_command():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"hark": f"{main.__module__}:{main.__name__}"}


def test_help_lists_every_verb(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    first_words = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert {verb[0] for verb in VERBS} <= set(first_words)


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"hark {asr.__version__}\n")


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_of_every_verb_loads_nothing_heavy(verb, capsys):
    loaded = f"import atexit; atexit.register(lambda: print(*{HEAVY} & sys.modules.keys(), file=sys.stderr))"
    ended = hark(*verb, "--help", code=f"import sys; {loaded}; {HARK}")
    assert ended.returncode == 0
    assert ended.stdout.startswith(f"usage: hark {' '.join(verb)} ")
    assert ended.stderr == "\n"


def test_help_answers_in_half_a_second():
    def seconds() -> float:
        start = time.perf_counter()
        assert hark("train", "--help").returncode == 0
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.5


@pytest.mark.parametrize(
    ("module", "verb"),
    [
        ("train", "train"),
        ("finetune", "finetune"),
        ("label", "label"),
        ("evaluate", "evaluate"),
        ("export", "export"),
        ("calibrate", "calibrate"),
        ("tune_decoder", "tune-decoder"),
        ("language_model", "language-model"),
        ("import_whisper", "import-whisper"),
        ("average", "average"),
        ("prepare", "prepare"),
        ("benchmark", "benchmark"),
    ],
)
def test_the_modules_are_the_same_commands(module, verb):
    command = [sys.executable, "-X", "importtime", "-m", f"training.{module}", "--help"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.stdout == hark(verb, "--help").stdout
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in ended.stderr.splitlines()}
    assert not loaded & HEAVY


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["trian", "x.yaml"], "train"),
        (["tune_decoder", "x.jsonl"], "tune-decoder"),
        (["language-model", "perplexty"], "perplexity"),
        (["benchmark", "peer"], "peers"),
        (["train", "x.yaml", "--resmue"], "--resume"),
        (["evaluate", "x.jsonl", "--modle", "english"], "--model"),
        (["evaluate", "x.jsonl", "--normalizer", "englisch"], "english"),
        (["tune-decoder", "x.jsonl", "--modl", "english"], "--model"),
        (["language-model", "ngram", "x.txt", "--ouput", "lm"], "--output"),
    ],
)
def test_the_right_word_is_suggested(capsys, arguments, word):
    assert f"; did you mean {word}?; see hark" in refused(capsys, *arguments)


def test_changes_of_the_configuration_may_stand_behind_options(capsys, tmp_path):
    (tmp_path / "a.yaml").write_text("{}")
    call = ["train", str(tmp_path / "a.yaml"), "--resume"]
    assert "output: Field required" in refused(capsys, *call)
    assert "output: Field required" not in refused(capsys, *call, "output=run")


def test_a_missing_file_is_named_in_one_line(capsys, tmp_path):
    missing = str(tmp_path / "none")
    for arguments in (
        ["train", missing],
        ["export", missing],
        ["finetune", missing, "--output", str(tmp_path / "out")],
        ["label", missing, "--teacher", "english", "--output", str(tmp_path / "out")],
        ["average", missing, missing, "--output", str(tmp_path / "out")],
        ["evaluate", missing, "--model", "english"],
        ["calibrate", missing, "--model", "english"],
        ["tune-decoder", missing, "--model", "english"],
        ["language-model", "ngram", missing, "--output", str(tmp_path / "lm")],
        ["language-model", "perplexity", missing, missing],
        ["import-whisper", missing, str(tmp_path / "out.safetensors")],
    ):
        assert missing in refused(capsys, *arguments)


def test_an_output_folder_that_takes_nothing_is_refused_before_any_work(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    output = str(tmp_path / "file" / "folder")
    for arguments in (
        ["evaluate", "none.jsonl", "--model", "english"],
        ["language-model", "ngram", "none.txt"],
        ["average", "english", "english"],
    ):
        line = refused(capsys, *arguments, "--output", output)
        assert line.startswith(f"error: nothing can be written to {output!r}: ")


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["train", "x.yaml"], "keras"),
        (["finetune", "x.jsonl", "--output", "out"], "jinja2"),
        (["export", "english"], "tensorflow"),
        (["evaluate", "x.jsonl", "--model", "english"], "jinja2"),
        (["average", "english", "english", "--output", "out"], "keras"),
    ],
)
def test_without_the_packages_of_training_the_way_out_is_named(tmp_path, arguments, missing):
    code = f"import sys; sys.modules[{missing!r}] = None; sys.path.insert(0, {str(ROOT)!r}); {HARK}"
    (tmp_path / "x.yaml").write_text("{output: run, model: {encoders: []}, data: {train: []}}")
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert f"hark {arguments[0]} needs {missing}" in line and "[train]" in line


def test_the_log_of_tensorflow_is_not_shown_but_its_errors_are(capfd):
    with without_startup_log():
        os.write(2, b"I0000 00:00:17 1 port.cc:153] oneDNN custom operations are on.\n")
        os.write(2, b"E0000 00:00:17 1 gpu.cc:1] the driver is too old\n")
    assert capfd.readouterr().err == "E0000 00:00:17 1 gpu.cc:1] the driver is too old\n"
