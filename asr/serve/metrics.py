"""What the server counts, for Prometheus: numbers only, nothing of what was said or by whom."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from asr.serve.job import Job

# Of the time from a recording's first turn to its end over its length.
REAL_TIME_FACTORS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
REQUEST_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """The counters of one server; those of all its processes where PROMETHEUS_MULTIPROC_DIR is set."""

    def __init__(self):
        self.registry = CollectorRegistry()
        own = {"registry": self.registry}
        now = {"multiprocess_mode": "livesum", **own}  # what processes do that are alive
        self.requests = Counter("hark_requests", "Requests by route and status", ["route", "status"], **own)
        self.errors = Counter("hark_errors", "Requests to the API that failed, by code", ["code"], **own)
        self.request_seconds = Histogram(
            "hark_request_seconds", "Time of transcriptions, upload included", buckets=REQUEST_SECONDS, **own
        )
        self.sound_seconds = Counter("hark_sound_seconds", "Sound recognised", **own)
        self.waiting = Gauge("hark_waiting", "Recordings in the queue", **now)
        self.recognising = Gauge("hark_recognising", "Recordings being recognised", **now)
        self.streams = Gauge("hark_streams", "Open WebSockets", **now)
        self.streamed_seconds = Counter("hark_streamed_seconds", "Sound that came through WebSockets", **own)
        self.real_time_factor = Histogram(
            "hark_real_time_factor",
            "Time of a recognition over the length of its sound",
            buckets=REAL_TIME_FACTORS,
            **own,
        )

    @contextmanager
    def measured(self, job: "Job") -> Iterator[None]:
        """Counts the sound of a job, and how fast it was recognised."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.sound_seconds.inc(job.done_seconds)
            if job.done_seconds:
                self.real_time_factor.observe((time.monotonic() - started) / job.done_seconds)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
            return generate_latest(registry)
        return generate_latest(self.registry)
