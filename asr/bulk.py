"""An archive on Ray: every recording exactly once, on one machine or on a cluster.

    SOURCE → asr/archive.py   stretches of recordings, in numbered shards, fixed at the start: inputs.parquet
           → tasks of Ray     a shard each, on any free core; the process keeps its model for the next one
           → asr/shards.py    utterances/00000.parquet and so on, which this process alone writes

A shard is done when its file is there, which appears whole or not at all. What dies is done again: a task by
this process, this process by the next call. (Ray Data would be shorter, but 2.60 does not run behind ray://.)
"""

import hashlib
import json
import os
import socket
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import parquet

from asr.archive import INPUTS, Stretch, divided, find_stretches, opened
from asr.audio import AudioError
from asr.bundle import Bundle
from asr.engine import ENGINE_GRAPH
from asr.files import write_whole
from asr.recognizer import Recognizer
from asr.shards import (
    UTTERANCES,
    Outcome,
    Result,
    Row,
    failure_of,
    key,
    read_outcomes,
    result_of,
    shard_path,
    summary,
    write_outcomes,
    write_shard,
    write_table,
    write_transcripts,
)

TASKS_A_CORE = 2  # one that runs and one that waits
MAX_DEATHS = 3  # of the processes that read a recording, until it is taken for the cause
MAX_DEATHS_A_CORE = 10  # one after the other, without a result in between
CONNECT_SECONDS = 5.0
STARTS = 3  # of Ray, until it is given up
LINE_SECONDS, SHOWN_SECONDS = 60.0, 1.0  # between two lines of progress: in a log, on a terminal


@dataclass(frozen=True)
class Job:
    """What the results depend on. `digest` is that of the model's files."""

    source: str
    model: str
    digest: str
    decoder: str | None
    language: str


@dataclass(frozen=True)
class Piece:
    """A shard, or a part of one in which a process died; and how many died of its only stretch."""

    shard: int
    stretches: Sequence[Stretch]
    deaths: int = 0


def run_bulk(
    source: str,
    folder: Path,
    *,
    model: str = "english",
    decoder: str | None = None,
    address: str | None = None,
    formats: Sequence[str] = (),
    retry_failed: bool = False,
    workers: int | None = None,
) -> int:
    """Recognises what is not yet done of an archive; prints a summary, and the progress on standard error.

    Args:
      source: see `asr.archive.find_stretches`.
      folder: for the results, which docs/bulk.md describes.
      model, decoder: as of `hark transcribe`.
      address: ray://HOST:PORT of a cluster; None starts Ray on this machine for the time of the call.
      formats: of asr.transcript.FORMATS, each written into a folder of that name.
      retry_failed: does again what failed before.
      workers: cores to use of this machine; None takes all.

    Returns how many inputs have failed.
    Raises ValueError for a wrong source, model, decoder or address, and for the folder of another job.
    """
    job = _job(source, model, decoder)
    shards = _shards(job, folder)
    todo = list(_todo(folder, shards, retry_failed))
    if todo:
        with _ray(address, workers) as ray:
            _recognise_all(ray, job, todo, folder)
    outcomes = [outcome for number in range(len(shards)) for outcome in read_outcomes(folder, number)]
    failed = write_outcomes(folder, outcomes)
    for format in formats:
        write_transcripts(folder, len(shards), format, Bundle.load(model).name, job.language)
    print(summary(outcomes))
    return failed


# What is to be done


def _job(source: str, model: str, decoder: str | None) -> Job:
    recognizer = Recognizer.load(model, threads=1)
    recognizer.decoder(decoder)  # ValueError for one that the model does not have
    if "://" not in source:
        source = os.path.abspath(source)
    if os.path.isdir(model):
        model = os.path.abspath(model)
    return Job(source, model, _digest(recognizer.bundle), decoder, recognizer.tokenizer.language)


def _digest(bundle: Bundle) -> str:
    """Of all files of the model but its card."""
    digest = hashlib.sha256()
    for path in sorted(bundle.directory.rglob("*")):
        if path.is_file() and path.suffix != ".md":
            digest.update(path.relative_to(bundle.directory).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _shards(job: Job, folder: Path) -> list[list[Stretch]]:
    """The stretches of each shard: as the folder has them, or else of the source, and then kept there."""
    described = folder / "job.json"
    if not described.exists():
        shards = divided(find_stretches(job.source))
        rows = [asdict(stretch) | {"shard": i} for i, shard in enumerate(shards) for stretch in shard]
        write_table(folder / "inputs.parquet", pa.Table.from_pylist(rows, INPUTS))
        (folder / "utterances").mkdir(exist_ok=True)
        write_whole(described, json.dumps(asdict(job), ensure_ascii=False, indent=2) + "\n")
        return shards
    there = json.loads(described.read_text(encoding="utf-8"))
    for name, value in asdict(job).items():
        if there.get(name) != value:
            raise ValueError(
                f"{folder}: has a job of another {name}, {there.get(name)}; give another folder to --output"
            )
    rows = parquet.read_table(folder / "inputs.parquet").to_pylist()
    return [
        [Stretch(*map(row.get, INPUTS.names[:-1])) for row in group]
        for _, group in groupby(rows, itemgetter("shard"))
    ]


def _todo(folder: Path, shards: Sequence[Sequence[Stretch]], retry_failed: bool) -> Iterator[Piece]:
    for number, stretches in enumerate(shards):
        if not shard_path(folder, number).exists():
            yield Piece(number, stretches)
        elif retry_failed:
            failed = {key(outcome) for outcome in read_outcomes(folder, number) if outcome["error"]}
            if again := [stretch for stretch in stretches if key(asdict(stretch)) in failed]:
                yield Piece(number, again)


# Recognition, in processes of Ray


def recognise(job: Job, stretches: Sequence[Stretch]) -> Result:
    """The utterances of stretches, and the outcome of each.

    Raises ValueError if this machine has another model.
    """
    recognizer = _recognizer(job.model, job.digest)
    utterances: list[Row] = []
    outcomes: list[Outcome] = []
    for stretch in stretches:
        warnings: list[str] = []
        try:
            with opened(stretch, warnings.append) as (sound, start):
                transcript = recognizer.transcribe(sound, decoder=job.decoder)
        except (AudioError, OSError) as error:
            outcomes.append(failure_of(stretch, error))
            continue
        except Exception as error:  # a mistake of ours: all other recordings are done nevertheless
            outcomes.append(failure_of(stretch, f"{type(error).__name__}: {error}"))
            continue
        rows, outcome = result_of(transcript, stretch, start, warnings)
        utterances += rows
        outcomes.append(outcome)
    return pa.Table.from_pylist(utterances, UTTERANCES), outcomes


@cache
def _recognizer(model: str, digest: str) -> Recognizer:
    # One thread: with more, sums are added in another order, and results would depend on the machine.
    recognizer = Recognizer.load(model, threads=1)
    if _digest(recognizer.bundle) != digest:
        raise ValueError(f"{socket.gethostname()} has other files of the model {model}; copy them there")
    return recognizer


def _recognise_all(ray, job: Job, todo: Sequence[Piece], folder: Path) -> None:
    """Gives pieces to free cores until every shard is written. Raises ValueError where nothing can run."""
    graph = Bundle.load(job.model).directory / ENGINE_GRAPH
    on_gpus = not graph.exists() and ray.cluster_resources().get("GPU", 0) > 0  # the graph runs on CPUs
    needs = {"num_gpus": 1} if on_gpus else {"num_cpus": 1}
    task = ray.remote(max_retries=0, max_calls=0, **needs)(recognise)

    left = {piece.shard: len(piece.stretches) for piece in todo}
    results: dict[int, list[Result]] = defaultdict(list)
    waiting, running = deque(todo), {}
    deaths_in_a_row = 0
    progress = Progress(sum(stretch.seconds for piece in todo for stretch in piece.stretches))
    while waiting or running:
        cores = max(1, round(ray.cluster_resources().get("GPU" if on_gpus else "CPU", 1)))
        while waiting and len(running) < TASKS_A_CORE * cores:
            piece = waiting.popleft()
            running[task.remote(job, piece.stretches)] = piece
        ready, _ = ray.wait(list(running), timeout=SHOWN_SECONDS)
        for done in ready:
            piece = running.pop(done)
            try:
                result = ray.get(done)
                deaths_in_a_row = 0
            except ray.exceptions.RayTaskError as error:
                raise ValueError(f"recognition cannot start there: {error.cause}") from error
            except ray.exceptions.RayError as error:  # the process or its machine died
                progress.deaths += 1
                deaths_in_a_row += 1
                if deaths_in_a_row > MAX_DEATHS_A_CORE * cores:
                    reason = " ".join(str(error).split())
                    raise ValueError(f"all processes die before they recognise anything: {reason}") from error
                result, smaller = _after_death(piece)
                waiting.extendleft(smaller)
            if result is None:
                continue
            results[piece.shard].append(result)
            left[piece.shard] -= len(piece.stretches)
            if not left[piece.shard]:
                write_shard(folder, piece.shard, results.pop(piece.shard))
            progress.add(piece.stretches, result[1])
        progress.show()
    progress.show(last=True)


def _after_death(piece: Piece) -> tuple[Result | None, list[Piece]]:
    """A result, or what is to be tried: the halves, so that a recording that kills is alone in the end."""
    if (count := len(piece.stretches)) > 1:
        halves = piece.stretches[: count // 2], piece.stretches[count // 2 :]
        return None, [Piece(piece.shard, half) for half in halves]
    if piece.deaths + 1 < MAX_DEATHS:
        return None, [Piece(piece.shard, piece.stretches, piece.deaths + 1)]
    [stretch] = piece.stretches
    reason = f"{MAX_DEATHS} processes died while they recognised it; is the memory enough?"
    return (UTTERANCES.empty_table(), [failure_of(stretch, reason)]), []


@contextmanager
def _ray(address: str | None, workers: int | None) -> Iterator[Any]:
    """Ray's module, connected. Raises ValueError where no cluster answers."""
    import ray

    options = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        options |= {"include_dashboard": False, "num_cpus": workers}
    else:
        _check_address(address)
    # Ray gives a busy machine 15 s to start it, and a cluster may fail to start what serves a client.
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(address or "local", **options)
            break
        except Exception as error:  # they share no base class
            ray.shutdown()
            if attempt == STARTS:
                raise ValueError(f"Ray does not start: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Ray itself would try for half a minute."""
    try:
        place = urlsplit(address)
        if place.scheme != "ray" or not place.hostname or not place.port:
            raise ValueError
    except ValueError:
        raise ValueError(f"{address}: is no address of a cluster; give ray://HOST:10001") from None
    try:
        socket.create_connection((place.hostname, place.port), CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"{address}: {reason}; start a cluster there, or leave out --address") from None


class Progress:
    """A line on standard error: hours done, real-time factor, time left, what went wrong.

    Args:
      total_seconds: about how much sound there is to do.
    """

    def __init__(self, total_seconds: float):
        self.total_seconds = total_seconds
        self.planned_seconds = 0.0  # of what is done, by the estimate
        self.seconds = 0.0  # of it, by the clock of the recordings
        self.failed = self.deaths = 0
        self.begun = self.shown = time.monotonic()
        self.is_terminal = sys.stderr.isatty()

    def add(self, stretches: Sequence[Stretch], outcomes: Sequence[Outcome]) -> None:
        """Counts a result."""
        self.planned_seconds += sum(stretch.seconds for stretch in stretches)
        self.seconds += sum(outcome.get("seconds", 0.0) for outcome in outcomes)
        self.failed += sum(bool(outcome["error"]) for outcome in outcomes)

    def show(self, last: bool = False) -> None:
        """Prints the line if it is time to."""
        now = time.monotonic()
        if not last and now - self.shown < (SHOWN_SECONDS if self.is_terminal else LINE_SECONDS):
            return
        self.shown = now
        took = now - self.begun
        line = f"{self.seconds / 3600:.2f} h done"
        if self.seconds:
            line += f", real-time factor {took / self.seconds:.4f}"
        if self.planned_seconds and not last:
            left = took * max(0.0, self.total_seconds / self.planned_seconds - 1)
            line += f", {timedelta(seconds=round(left))} left"
        line += f", {self.failed} failed" if self.failed else ""
        line += f", {self.deaths} tasks that died were done again" if self.deaths else ""
        start, end = ("\r\x1b[K", "\n" if last else "") if self.is_terminal else ("", "\n")
        print(start + line, end=end, file=sys.stderr, flush=True)
