"""Many clients of `hark serve` at once: errors, waiting times, and the memory of the server.

    hark benchmark server dev-read.jsonl --clients 20 --minutes 10 --workers 2

Each client sends one recording after the other, without a pause, to a server without the page that is started
for this. One that is sent away with status 429 is no error: it is counted, and sent again after the seconds
of Retry-After. Memory is that of all processes of the server, shared pages counted once (PSS; Linux).
"""

import argparse
import http.client
import itertools
import json
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np

from training.manifest import read_manifest

ANSWER_SECONDS = 600
SAMPLE_SECONDS = 1.0  # between two looks at the memory of the server
HARK = [sys.executable, "-c", "from training.commands import main; main()"]


def main(options: argparse.Namespace) -> int:
    """Prints what happened; the exit code is 1 if a request failed."""
    recordings = [entry.audio for path in options.manifests for entry in read_manifest(path)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    models = [] if options.model is None else ["--model", options.model]
    command = [*HARK, "serve", "--no-page", "--port", str(port), "--workers", str(options.workers), *models]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            if not server.stdout.readline():
                raise ValueError("the server does not start: see what `hark serve --no-page` says")
            return _measure(server.pid, port, recordings, options.clients, 60 * options.minutes)
        finally:
            server.terminate()


def _measure(pid: int, port: int, recordings: list[Path], clients: int, seconds: float) -> int:
    answers: list[tuple[str, float]] = []
    sent_away: list[float] = []
    begin = time.monotonic()

    def run(first: int) -> None:
        for path in itertools.islice(itertools.cycle(recordings), first, None):
            if time.monotonic() - begin > seconds:
                return
            sent = time.monotonic()
            while (answer := _send(port, path))[0] == "429":
                sent_away.append(answer[1])
                time.sleep(answer[1])
            answers.append((answer[0], time.monotonic() - sent))

    _send(port, recordings[0])  # before which the search may have to be compiled
    begin = time.monotonic()
    threads = [threading.Thread(target=run, args=[17 * number]) for number in range(clients)]
    for thread in threads:
        thread.start()
    megabytes = []
    while any(thread.is_alive() for thread in threads):
        megabytes.append(_megabytes(pid))
        time.sleep(SAMPLE_SECONDS)
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begin
    print(f"{clients} clients for {seconds:.0f} s, {len(sent_away)} times sent away with 429")
    return _report(answers, megabytes)


def _report(answers: list[tuple[str, float]], megabytes: list[float]) -> int:
    waits = [wait for _, wait in answers]
    failed = Counter(answer for answer, _ in answers if answer != "200")
    quarter = max(1, len(megabytes) // 4)
    early, late = (np.mean(part) for part in (megabytes[quarter : 2 * quarter], megabytes[-quarter:]))
    print(f"{len(answers)} answers, {failed.total()} errors {dict(failed) if failed else ''}".rstrip())
    print("wait p50 {:.2f} s, p95 {:.2f} s, longest {:.2f} s".format(*np.percentile(waits, [50, 95, 100])))
    print(f"memory {early:.0f} MB in the second quarter of the time, {late:.0f} MB in the last")
    return 1 if failed else 0


def _send(port: int, path: Path) -> tuple[str, float]:
    """The status of one transcription, or the error on the way to it; and the seconds of Retry-After."""
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
            return "200 without a text", 0.0
        return str(answer.status), float(answer.headers.get("Retry-After", 0.0))
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__, 0.0
    finally:
        connection.close()


def _megabytes(pid: int) -> float:
    """Of a process and its children."""
    total = 0.0
    for process in [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]:
        with suppress(OSError):  # it has just ended
            [line] = re.findall(
                r"^Pss: +(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE
            )
            total += int(line) * 1024 / 1e6
    return total
