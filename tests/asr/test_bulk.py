"""An archive on Ray: every recording once, whatever is killed; what is refused; what is written."""

import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
import soundfile

pytest.importorskip("ray", reason="needs Ray: pip install '.[bulk]'")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow: pip install '.[bulk]'")

from asr import Recognizer  # noqa: E402
from asr.archive import Stretch  # noqa: E402
from asr.bulk import MAX_DEATHS, Piece, _after_death  # noqa: E402
from asr.cli import main  # noqa: E402

pytestmark = pytest.mark.timeout(600)  # Ray needs half a minute to start on a busy machine

ROOT = Path(__file__).parents[2]
CLIPS, BROKEN = 60, 3
SECONDS = 14  # of a clip: 12 shards, some of which are always left to do
WAIT_SECONDS = 120


@pytest.fixture(scope="module")
def archive(tmp_path_factory, speak) -> Path:
    """57 clips in three folders and formats, and three broken files."""
    folder = tmp_path_factory.mktemp("archive")
    random_ = random.Random(0)
    for number in range(CLIPS):
        suffix = ("wav", "flac", "ogg")[number % 3]
        path = folder / suffix / f"{number:02}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        if number % (CLIPS // BROKEN) == 7:
            path.write_bytes([b"", b"RIFF but then nothing", b"no sound"][number // (CLIPS // BROKEN)])
            continue
        text = "".join(random_.choices("abcdefghij ", k=SECONDS * 7))
        soundfile.write(path, speak(0.5, text[: len(text) // 2], 0.7, text[len(text) // 2 :], 0.5), 16_000)
    return folder


def command(archive: Path, output: Path, *arguments: str) -> list[str]:
    options = ["--output", str(output), "--decoder", "greedy", *arguments]
    return [sys.executable, "-m", "asr", "bulk", str(archive), *options]


def run(archive: Path, output: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(archive, output, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def rows(output: Path) -> list[dict]:
    """All utterances, as a reader of the folder finds them."""
    return parquet.read_table(output / "utterances").to_pylist()


def descendants(pid: int) -> dict[int, str]:
    """The processes that a process has started, and those that they have, with their titles."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            titles[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (ValueError, OSError):
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {child: titles[child] for child in found - {pid}}


def wait_for(what, seconds: float = WAIT_SECONDS):
    """What is true in the end."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return found


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def undisturbed(archive, tmp_path_factory):
    """The folder of a run without a cluster, and how it ended."""
    output = tmp_path_factory.mktemp("undisturbed")
    return output, run(archive, output, "--format", "srt", "json")


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes of a core each: its address, their process ids, the environment of its users."""
    port, client_port = free_port(), free_port()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = {**os.environ, **token, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
    with tempfile.TemporaryDirectory(prefix="ray") as folder, open(f"{folder}/log", "w+") as log:

        def start(*arguments: str, until: str) -> subprocess.Popen:
            options = {"stdout": log, "stderr": log, "env": environment, "cwd": folder}
            node = subprocess.Popen([*ray, *arguments], **options)
            wait_for(lambda: until in Path(log.name).read_text() or node.poll() is not None)
            assert node.poll() is None, Path(log.name).read_text()
            return node

        head = ["--head", f"--port={port}", f"--ray-client-server-port={client_port}"]
        head += ["--include-dashboard=false", f"--temp-dir={folder}"]
        nodes = [start(*head, until="To terminate the Ray runtime")]
        try:
            log.truncate(0)
            nodes.append(start(f"--address=127.0.0.1:{port}", until="To terminate the Ray runtime"))
            yield f"ray://127.0.0.1:{client_port}", [node.pid for node in nodes], environment
        finally:
            for node in reversed(nodes):
                node.terminate()
                node.wait(WAIT_SECONDS)


def test_every_recording_is_there_once(archive, undisturbed):
    output, ended = undisturbed
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    outcomes = parquet.read_table(output / "outcomes.parquet").to_pylist()
    files = sorted(str(path) for path in archive.rglob("*") if path.is_file())
    assert [outcome["path"] for outcome in outcomes] == files and len(files) == CLIPS
    found = rows(output)
    assert {row["path"] for row in found} == {row["path"] for row in outcomes if row["error"] is None}
    assert Counter(row["path"] for row in found) == {
        row["path"]: row["utterances"] for row in outcomes if row["error"] is None
    }
    failures = [json.loads(line) for line in (output / "failures.jsonl").read_text().splitlines()]
    assert len(failures) == BROKEN
    assert all(failure["path"] in failure["error"] for failure in failures)
    assert f"error: {BROKEN} inputs failed: {output / 'failures.jsonl'} names them" in ended.stderr


def test_rows_and_files_are_those_of_transcribe(archive, undisturbed):
    output, _ = undisturbed
    recognizer = Recognizer.load("english", threads=1)
    found = rows(output)
    for path in (archive / "wav" / "00.wav", archive / "ogg" / "50.ogg"):
        transcript = recognizer.transcribe(path, decoder="greedy")
        ours = [row for row in found if row["path"] == str(path)]
        assert [row["text"] for row in ours] == [segment.text for segment in transcript.segments]
        for row, segment in zip(ours, transcript.segments, strict=True):
            assert (row["start"], row["end"]) == pytest.approx((segment.start, segment.end), abs=0.001)
            assert [word["text"] for word in row["words"]] == [word.text for word in segment.words]
            assert 0 < row["confidence"] < 1
            assert (row["duration"], row["model"]) == (round(transcript.duration, 3), "english")
        place = Path(path.parent.name, path.stem)
        assert (output / "srt" / f"{place}.srt").read_text() == transcript.to_srt()
        written = json.loads((output / "json" / f"{place}.json").read_text())
        assert written["segments"] == transcript.to_dict()["segments"]
    assert len(list((output / "srt").rglob("*.srt"))) == CLIPS - BROKEN


def test_the_summary_and_the_progress(archive, undisturbed):
    output, ended = undisturbed
    summary = dict(line.split(maxsplit=1) for line in ended.stdout.splitlines())
    outcomes = [
        row for row in parquet.read_table(output / "outcomes.parquet").to_pylist() if not row["error"]
    ]
    assert float(summary["hours"]) == pytest.approx(sum(row["seconds"] for row in outcomes) / 3600, abs=0.005)
    assert int(summary["words"]) == sum(len(row["words"]) for row in rows(output)) > 500
    assert summary["failed"] == f"{BROKEN} of {CLIPS} inputs"
    last = [line for line in ended.stderr.splitlines() if " h done" in line][-1]
    assert "real-time factor 0." in last and f"{BROKEN} failed" in last


def test_what_dies_is_done_again(archive, undisturbed, cluster, tmp_path):
    """A worker is killed, then the call itself, then another worker: the same bytes."""
    address, nodes, environment = cluster
    whole = undisturbed[0]
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    random_ = random.Random(seed)

    def workers() -> list[int]:
        return [
            pid for node in nodes for pid, title in descendants(node).items() if "ray::recognise" in title
        ]

    def kill_a_worker() -> None:
        time.sleep(random_.random())
        os.kill(random_.choice(wait_for(workers)), signal.SIGKILL)

    def shards() -> int:
        return len(list((tmp_path / "utterances").glob("[0-9]*.parquet")))

    call = command(archive, tmp_path, "--address", address)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    first = subprocess.Popen(call, cwd=ROOT, **pipes)
    kill_a_worker()
    wait_for(lambda: first.poll() is not None or shards())
    time.sleep(random_.random() / 2)
    first.kill()
    first.communicate()
    assert 0 < shards() < len(list((whole / "utterances").iterdir()))

    second = subprocess.Popen(call, cwd=ROOT, **pipes)
    kill_a_worker()
    _, errors = second.communicate(timeout=300)
    assert second.returncode == 1, errors
    for path in (*whole.glob("utterances/*"), whole / "outcomes.parquet", whole / "failures.jsonl"):
        assert (tmp_path / path.relative_to(whole)).read_bytes() == path.read_bytes()
    assert shards() == len(list((whole / "utterances").iterdir()))


def test_a_killed_call_leaves_no_worker(archive, tmp_path):
    call = subprocess.Popen(command(archive, tmp_path), cwd=ROOT, stderr=subprocess.DEVNULL)

    def workers() -> list[int]:
        return [pid for pid, title in descendants(call.pid).items() if "ray::recognise" in title]

    left = wait_for(workers)
    call.kill()
    call.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left))


def test_failures_are_tried_again_only_when_wanted(archive, undisturbed, capsys):
    output, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in (output / "utterances").iterdir()}
    found = rows(output)
    assert main(command(archive, output)[3:]) == 1  # nothing is left to do: Ray is not even started
    assert {path: path.stat().st_mtime_ns for path in (output / "utterances").iterdir()} == before
    summary = capsys.readouterr().out

    broken = json.loads((output / "failures.jsonl").read_text().splitlines()[0])["path"]
    content = Path(broken).read_bytes()
    Path(broken).write_bytes((archive / "wav" / "00.wav").read_bytes())
    try:
        ended = run(archive, output, "--retry-failed")
    finally:
        Path(broken).write_bytes(content)
    assert (ended.returncode, ended.stderr.count("Traceback")) == (1, 0)
    assert f"{BROKEN - 1} of {CLIPS} inputs" in ended.stdout and ended.stdout != summary
    assert [row for row in rows(output) if row["path"] != broken] == found
    again = [row["text"] for row in rows(output) if row["path"] == broken]
    assert again and again == [row["text"] for row in found if row["path"] == str(archive / "wav" / "00.wav")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "SOURCE"),
        (["missing"], "no such file or folder"),
        (["empty"], "no recording"),
        (["no-paths.parquet"], "no column of paths"),
        (["s3://"], ""),
        (["sound", "--model", "klingon"], "no such model"),
        (["sound", "--decoder", "viterbi"], "viterbi"),
        (["sound", "--format", "pdf"], "pdf"),
        (["sound", "--address", "localhost"], "ray://HOST:10001"),
        (["sound", "--address", "ray://127.0.0.1:1"], "refused; start a cluster"),
        (["sound", "--address", "ray://nowhere.invalid:10001"], "nowhere.invalid"),
        (["sound", "--output", "file"], "nothing can be written"),
    ],
)
def test_wrong_calls(tmp_path, speak, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file").write_text("")
    Path("sound").mkdir()
    soundfile.write("sound/hello.wav", speak(0.5, "hello", 0.5), 16_000)
    import pyarrow as pa

    parquet.write_table(pa.table({"text": ["hello"]}), "no-paths.parquet")
    output = [] if "--output" in arguments else ["--output", "out"]
    try:
        code = main(["bulk", *arguments, *output])
    except SystemExit as end:
        code = end.code
    [line] = capsys.readouterr().err.splitlines()
    assert code == 2
    assert line.startswith("error: ") and message in line


@pytest.mark.parametrize(
    ("options", "word"),
    [(["--decoder", "beam"], "decoder"), (["--model", "{copy}"], "model"), ([], "source")],
)
def test_the_folder_of_another_job_is_refused(archive, undisturbed, tmp_path, capsys, options, word):
    output, _ = undisturbed
    (tmp_path / "copy").symlink_to(Recognizer.load("english").bundle.directory)
    options = [option.format(copy=tmp_path / "copy") for option in options]
    source = archive if options else archive / "wav"
    options = options if "--decoder" in options else [*options, "--decoder", "greedy"]
    assert main(["bulk", str(source), "--output", str(output), *options]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {output}: has a job of another {word}")


@pytest.mark.parametrize("count", [1, 2, 7, 256])
def test_a_recording_that_kills_is_found_and_the_others_are_done(count):
    stretches = [Stretch(f"{number}.wav") for number in range(count)]
    deadly = stretches[count // 3]
    waiting, done, failed, deaths = [Piece(0, stretches)], [], [], 0
    while waiting:
        piece = waiting.pop()
        if deadly not in piece.stretches:
            done += piece.stretches
            continue
        deaths += 1
        result, smaller = _after_death(piece)
        waiting += smaller
        failed += result[1] if result else []
    assert sorted(done, key=stretches.index) == [stretch for stretch in stretches if stretch != deadly]
    assert [failure["path"] for failure in failed] == [deadly.path]
    assert deaths <= MAX_DEATHS + 8  # halves of 256
