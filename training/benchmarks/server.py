"""Many clients of `hark serve` at once: errors, waiting times, and the memory of the server.

    hark benchmark server dev-read.jsonl --clients 20 --minutes 10

Each client sends one recording after the other, without a pause, to a server without the page that is started
for this. Recordings that are sent away with status 429 are sent again, as clients do.
"""

import argparse
import http.client
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from pathlib import Path

import numpy as np

from training.manifest import read_manifest

ANSWER_SECONDS = 600
SAMPLE_SECONDS = 1.0  # between two looks at the memory of the server
START = "from training.commands import main; main(['serve', '--no-page', '--port', '{}', *{}])"


def main(options: argparse.Namespace) -> int:
    """Prints what happened; the exit code is 1 if a request failed."""
    recordings = [entry.audio for path in options.manifests for entry in read_manifest(path)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    models = [] if options.model is None else ["--model", options.model]
    command = [sys.executable, "-c", START.format(port, models)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            if not server.stdout.readline():
                raise ValueError("the server does not start: see what `hark serve --no-page` says")
            return _measure(server.pid, port, recordings, options.clients, 60 * options.minutes)
        finally:
            server.terminate()


def _measure(pid: int, port: int, recordings: list[Path], clients: int, seconds: float) -> int:
    answers: list[tuple[str, float]] = []
    begin = time.monotonic()

    def run(first: int) -> None:
        for path in itertools.islice(itertools.cycle(recordings), first, None):
            if time.monotonic() - begin > seconds:
                return
            sent = time.monotonic()
            while (answer := _send(port, path)) == "429":
                time.sleep(1.0)
            answers.append((answer, time.monotonic() - sent))

    _send(port, recordings[0])  # before which the search may have to be compiled
    begin = time.monotonic()
    threads = [threading.Thread(target=run, args=[17 * number]) for number in range(clients)]
    for thread in threads:
        thread.start()
    megabytes = []
    while any(thread.is_alive() for thread in threads):
        megabytes.append(_resident_megabytes(pid))
        time.sleep(SAMPLE_SECONDS)
    for thread in threads:
        thread.join()
    return _report(answers, megabytes, clients, time.monotonic() - begin)


def _report(answers: list[tuple[str, float]], megabytes: list[float], clients: int, seconds: float) -> int:
    waits = [wait for _, wait in answers]
    failed = Counter(answer for answer, _ in answers if answer != "200")
    quarter = max(1, len(megabytes) // 4)
    early, late = (np.mean(part) for part in (megabytes[quarter : 2 * quarter], megabytes[-quarter:]))
    counts = f"{len(answers)} answers, {failed.total()} errors {dict(failed) if failed else ''}"
    print(f"{clients} clients for {seconds:.0f} s: {counts}".rstrip())
    print("wait p50 {:.2f} s, p95 {:.2f} s, longest {:.2f} s".format(*np.percentile(waits, [50, 95, 100])))
    print(f"memory {early:.0f} MB in the second quarter of the time, {late:.0f} MB in the last")
    return 1 if failed else 0


def _send(port: int, path: Path) -> str:
    """The status of one transcription, or the error on the way to it."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body = head.encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        connection.request("POST", "/v1/audio/transcriptions", body, kind)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status == 200 and "text" not in json.loads(content):
            return "200 without a text"
        return str(answer.status)
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


def _resident_megabytes(pid: int) -> float:
    return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)])) * 1024 / 1e6
