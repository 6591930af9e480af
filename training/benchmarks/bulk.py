"""What `hark bulk` loses with several workers: seconds of sound a second, beside those of one worker.

    hark benchmark bulk dev-read.jsonl --workers 2 --decoder greedy

runs one worker and several alternately, on this machine. The last line is the throughput of several over that
of one times their number, from the medians.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SHARDS_BEFORE, SHARDS_AFTER = 2, 1  # of each worker, that do not count


def main(options: argparse.Namespace) -> None:
    """Prints a line a run, and the share.

    Raises ValueError for one worker, too little sound, or recordings that fail.
    """
    try:
        import ray  # noqa: F401

        from asr.bulk import run_bulk
    except ModuleNotFoundError as error:
        raise ValueError(f"bulk needs {error.name}: pip install '.[bulk]' in Hark's folder") from error

    if options.workers == 1:
        raise ValueError("--workers 1: is what others are compared with; give 2 or more")
    rates: dict[int, list[float]] = {1: [], options.workers: []}
    print("workers    sound   in all   counted    time   sound/time", flush=True)
    for workers in [*rates] * options.repeats:
        with tempfile.TemporaryDirectory() as name:
            folder, begin = Path(name), time.monotonic()
            chosen = {"model": options.model, "decoder": options.decoder, "workers": workers}
            with contextlib.redirect_stdout(None):
                failed = run_bulk(options.source, folder, **chosen)
            took = time.monotonic() - begin
            shards = _shards(folder)
        if failed:
            raise ValueError(f"{options.source}: {failed} of its recordings fail; leave them out")
        if len(shards) < (SHARDS_BEFORE + SHARDS_AFTER + 1) * workers:
            raise ValueError(f"{options.source}: has too little sound for {workers} workers; give more")
        sound, seconds = counted(shards, workers)
        rates[workers].append(sound / seconds)
        hours = sum(length for _, length in shards) / 3600
        print(
            f"{workers:7} {hours:6.2f} h {took:6.0f} s {sound / 3600:7.2f} h {seconds:5.1f} s"
            f" {sound / seconds:12.1f}",
            flush=True,
        )
    one, several = map(statistics.median, rates.values())
    print(
        f"{options.workers} workers do {several / one / options.workers:.2f} of {options.workers} times one"
    )


def counted(shards: Sequence[tuple[float, float]], workers: int) -> tuple[float, float]:
    """Seconds of sound, and the time they took, without start and end.

    Starting Ray and loading the model do not count, nor does the end, when some workers have nothing left to
    do: time runs from when as many shards are written as would be two of each worker, to when one of each is
    left.

    Args:
      shards: when each was written, and its seconds of sound, by time.
    """
    before, end = SHARDS_BEFORE * workers, len(shards) - SHARDS_AFTER * workers
    return sum(seconds for _, seconds in shards[before:end]), shards[end - 1][0] - shards[before - 1][0]


def _shards(folder: Path) -> list[tuple[float, float]]:
    from asr.shards import read_outcomes

    paths = sorted((folder / "utterances").glob("*.parquet"))
    sounds = [sum(outcome["seconds"] for outcome in read_outcomes(folder, i)) for i in range(len(paths))]
    return sorted(zip((path.stat().st_mtime for path in paths), sounds, strict=True))
