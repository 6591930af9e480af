"""How soon live text comes, how often it changes, what it costs, and whether it ends as a file's.

    python -m training.benchmark streaming dev-read.jsonl --model english

Each recording is played to a stream of its own in blocks of 0.1 s, with silence behind it, until the voice
activity detection has ended the last utterance. The clock is simulated: work on a block begins when its last
sample was spoken, or when the work on the blocks before it is done, whichever is later, and takes the
processor time that it takes on one thread. So a run need not last as long as the sound, and what else the
machine does changes little. When words are spoken is found by aligning the reference. With --streams, so many
streams then play at once in real time.

    first partial       after the end of the first word
    stable word         after the end of the word; words that were never stable come with the final
    final               after the block with which the utterance was over, and after its last word
    revised             words of a partial that the next one of the utterance has no longer, of all new words
    replaced            stable words that are others in the final, in small letters without punctuation
"""

import argparse
import difflib
import itertools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from queue import PriorityQueue

import numpy as np

from asr.audio import SAMPLE_RATE
from asr.recognizer import Recognizer
from asr.streaming import Event, Final, Partial, Stream
from training.environment import environment
from training.manifest import distinct_names, read_manifest
from training.scoring.alignment import align, side_by_side
from training.scoring.console import progress, table
from training.scoring.intervals import percentile_interval, rate_interval, resample, sums_by_unit
from training.scoring.normalizers import DEFAULT, normalizer
from training.tune_decoder import readable

BLOCK_SECONDS = 0.1
SILENCE_SECONDS = 2.5  # behind each recording: more than the pause that ends an utterance


@dataclass
class Played:
    """One recording, as a stream received it. Times are in seconds from its start.

    Attributes:
      events: each with the time at which it was there, and the end of the block with which it came.
      processor_seconds: that the stream took.
    """

    seconds: float
    events: list[tuple[float, float, Event]] = field(default_factory=list)
    processor_seconds: float = 0.0


@dataclass
class Measured:
    """What is measured of one or more recordings; latencies in seconds, one for each word or final."""

    first: list[float] = field(default_factory=list)
    stable: list[float] = field(default_factory=list)
    final: list[float] = field(default_factory=list)
    final_after_word: list[float] = field(default_factory=list)
    new_words: int = 0
    revised_words: int = 0
    stable_words: int = 0
    replaced_words: int = 0


def main(options: argparse.Namespace) -> None:
    """`hark benchmark streaming`: prints the tables of each manifest."""
    recognizer = Recognizer.load(options.model, threads=1)
    for name, value in environment(["hark", "benchmark", *options.arguments]).items():
        print(f"{name}: {value}")
    for name, path in zip(distinct_names(options.manifests), options.manifests, strict=True):
        entries = list(readable(recognizer.tokenizer, read_manifest(path)[: options.limit]))
        sounds = [_with_silence(samples) for _, samples in entries]
        references = [entry.text for entry, _ in entries]
        measured, played, texts = Measured(), [], []
        for reference, sound in progress(name)(list(zip(references, sounds, strict=True))):
            played.append(play(recognizer.stream(decoder=options.decoder), sound))
            texts.append(final_text(played[-1]))
            measure(measured, played[-1], recognizer, reference, sound)
        print(f"\n{name}: {len(entries)} recordings")
        print("\n".join(_latency_table(measured)))
        seconds = sum(one.seconds for one in played)
        print(f"revised: {share(measured.revised_words, measured.new_words)} partial words")
        print(f"replaced: {share(measured.replaced_words, measured.stable_words)} stable words")
        processor = sum(one.processor_seconds for one in played) / seconds
        print(f"processor: {processor:.3f} of one core, over {seconds:.0f} s of sound")
        files = [recognizer.transcribe(sound, decoder=options.decoder).text for sound in sounds]
        print("\n".join(_error_table(references, texts, files, [entry.speaker for entry, _ in entries])))
        if options.streams:
            print(_crowd(recognizer, sounds, options.streams, options.seconds))


def share(part: int, whole: int) -> str:
    """ "4.0 % (4 of 100)"."""
    return f"{100 * part / max(1, whole):.1f} % ({part} of {whole})"


def _with_silence(samples: np.ndarray) -> np.ndarray:
    return np.concatenate([samples, np.zeros(round(SILENCE_SECONDS * SAMPLE_RATE), np.float32)])


def blocks(sound: np.ndarray) -> Iterator[np.ndarray]:
    """Blocks of BLOCK_SECONDS, the last one shorter."""
    size = round(BLOCK_SECONDS * SAMPLE_RATE)
    return (sound[start : start + size] for start in range(0, len(sound), size))


def play(stream: Stream, sound: np.ndarray) -> Played:
    """Plays a recording [samples] on a simulated clock."""
    played = Played(len(sound) / SAMPLE_RATE)
    now = 0.0
    for block in blocks(sound):
        began = time.process_time()
        events = stream.write(block)
        took = time.process_time() - began
        received = stream.seconds
        now = max(now, received) + took
        played.processor_seconds += took
        played.events += [(now, received, event) for event in events]
    played.events += [(now, stream.seconds, event) for event in stream.finish()]
    return played


def final_text(played: Played) -> str:
    """All finals on one line."""
    return " ".join(event.segment.text for _, _, event in played.events if isinstance(event, Final))


def measure(
    measured: Measured, played: Played, recognizer: Recognizer, reference: str, sound: np.ndarray
) -> None:
    """Adds what is measured of one recording."""
    normalize = recognizer.tokenizer.normalize
    aligned = recognizer.align(sound, reference).words
    spoken = [(text, word.end) for word in aligned for text in normalize(word.text).split()]
    partials = [(now, event) for now, _, event in played.events if isinstance(event, Partial)]
    first = next((now for now, partial in partials if partial.text), None)
    if first is not None:
        measured.first.append(first - spoken[0][1])

    stable: list[tuple[str, float]] = []  # words and the time when they became stable
    before: list[str] = []  # the words of the last partial
    known = 0  # stable words of the utterance
    finals = [(now, received, event) for now, received, event in played.events if isinstance(event, Final)]
    for now, _, event in played.events:
        if isinstance(event, Final):
            before, known = [], 0
            continue
        words = event.text.split()
        blocks_in_both = difflib.SequenceMatcher(None, before, words, False).get_matching_blocks()
        matched = sum(block.size for block in blocks_in_both)
        measured.new_words += len(words) - matched
        measured.revised_words += len(before) - matched
        now_stable = event.text[: event.stable_length].split()
        stable += [(word, now) for word in now_stable[known:]]
        before, known = words, len(now_stable)
    for now, together in itertools.groupby(finals, lambda final: final[0]):
        *_, (_, received, last) = together
        measured.final.append(now - received)
        measured.final_after_word.append(now - last.segment.end)

    texts = " ".join(word for word, _ in stable)
    [operations] = align([" ".join(text for text, _ in spoken)], [texts]).operations
    times, ends = iter(now for _, now in stable), iter(end for _, end in spoken)
    for _, said, shown in side_by_side(operations, [text for text, _ in spoken], texts.split()):
        became_stable = None if shown is None else next(times)
        if said is not None:
            end = next(ends)
            if became_stable is None:
                later = (now for now, _, event in finals if event.segment.end > end)
                became_stable = next(later, played.seconds)
            measured.stable.append(became_stable - end)
    [counts] = align([texts], [normalize(final_text(played))]).words
    hits, substitutions, deletions, _ = map(int, counts)
    measured.stable_words += hits + substitutions + deletions
    measured.replaced_words += substitutions + deletions


def _latency_table(measured: Measured) -> list[str]:
    rows = [
        ("first partial", measured.first),
        ("stable word", measured.stable),
        ("final, after its block", measured.final),
        ("final, after its last word", measured.final_after_word),
    ]
    return table(
        ["seconds", "median", "95 %", "most", "count"],
        [
            [name, *(f"{value:.2f}" for value in np.quantile(seconds, [0.5, 0.95, 1])), str(len(seconds))]
            for name, seconds in rows
            if seconds
        ],
    )


def _error_table(
    references: Sequence[str], live: Sequence[str], files: Sequence[str], speakers: Sequence[str]
) -> list[str]:
    rows = []
    for name in DEFAULT:
        normalize = normalizer(name)
        said, *recognised = (list(map(normalize, texts)) for texts in (references, live, files))
        tables = [align(said, texts).words for texts in recognised]
        counts = np.column_stack([*(one[:, 1:].sum(axis=1) for one in tables), tables[0][:, :3].sum(axis=1)])
        _, sums = sums_by_unit(counts, speakers)
        live_rate, file_rate = 100 * sums[:, :2].sum(axis=0) / sums[:, 2].sum()
        drawn = resample(sums)
        drawn_live, drawn_file = 100 * drawn[:, :2].T / drawn[:, 2]
        cells = []
        for rate, values in ((live_rate, drawn_live), (file_rate, drawn_file)):
            low, high = rate_interval(rate, values, len(sums))
            cells.append(f"{rate:.2f} ({low:.2f}–{high:.2f})")
        low, high = percentile_interval(drawn_live - drawn_file, len(sums))
        difference = f"{live_rate - file_rate:+.2f} ({low:+.2f} to {high:+.2f})"
        differing = sum(one != other for one, other in zip(*recognised, strict=True))
        rows.append([name, str(sums[:, 2].sum()), *cells, difference, str(differing)])
    head = ["normaliser", "words", "WER % of the finals", "of the file", "points more", "texts that differ"]
    return table(head, rows)


def _crowd(recognizer: Recognizer, sounds: Sequence[np.ndarray], count: int, seconds: float) -> str:
    """Plays `count` streams at once in real time, each from another place on, to one worker a core.

    A worker takes the stream whose sound has waited longest, and all that is there of it: on a busy machine
    blocks become longer, and decodings fewer.
    """
    sound = np.concatenate(sounds)
    size = round(BLOCK_SECONDS * SAMPLE_RATE)
    streams = [recognizer.stream() for _ in range(count)]
    began = time.perf_counter()
    # When the next block of each stream is there: they begin one after the other within a block.
    due = PriorityQueue()
    for number in range(count):
        due.put((BLOCK_SECONDS * (1 + number / count), number))
    late: list[float] = []  # of each block, when it was done after its last sample

    def work() -> None:
        while (item := due.get())[0] < seconds:
            there, number = item
            time.sleep(max(0.0, began + there - time.perf_counter()))
            blocks_there = 1 + int((time.perf_counter() - began - there) / BLOCK_SECONDS)
            place = number * len(sound) // count + round(streams[number].seconds * SAMPLE_RATE)
            streams[number].write(np.take(sound, range(place, place + blocks_there * size), mode="wrap"))
            late.append(time.perf_counter() - began - there)
            due.put((there + blocks_there * BLOCK_SECONDS, number))
        due.put(item)  # for the other workers to see

    began_processor = time.process_time()
    workers = [threading.Thread(target=work) for _ in range(os.cpu_count() or 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    cores = (time.process_time() - began_processor) / (time.perf_counter() - began)
    median, most, worst = np.quantile(late, [0.5, 0.95, 1])
    return (
        f"\n{count} streams at once for {seconds} s, on {cores:.2f} cores: a block of {BLOCK_SECONDS} s "
        f"was done {median:.2f} s after its end (median), 95 % {most:.2f} s, at most {worst:.2f} s"
    )
