"""The results of an archive: a Parquet file a shard, and what is made of all of them in the end.

A row is an utterance. The outcome of every input, of those without speech and of those that failed too, is in
the footer of the same file, so that both appear at once.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, takewhile
from operator import itemgetter
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from asr.archive import Stretch
from asr.files import replacing, write_whole
from asr.transcript import Segment, Transcript, Word

_TIMES = [("start", pa.float64()), ("end", pa.float64())]
_WORD = pa.struct([("text", pa.string()), *_TIMES, ("confidence", pa.float32())])
UTTERANCES = pa.schema(
    [
        ("path", pa.string()),
        *_TIMES,
        ("text", pa.string()),
        ("words", pa.list_(_WORD)),
        ("confidence", pa.float32()),  # mean of its words
        ("channel", pa.string()),
        ("duration", pa.float64()),  # of the recording
        ("model", pa.string()),
    ]
)
OUTCOMES = pa.schema(
    [
        ("path", pa.string()),
        *_TIMES,  # of the stretch, as in INPUTS
        ("seconds", pa.float64()),  # that were read
        ("duration", pa.float64()),  # of the recording
        ("utterances", pa.int32()),
        ("words", pa.int32()),
        ("speech_seconds", pa.float64()),
        ("confidence", pa.float64()),  # mean of the words
        ("warnings", pa.list_(pa.string())),
        ("error", pa.string()),
    ]
)
KEY = ("path", "start", "end")  # of a stretch
Row = dict[str, Any]  # of UTTERANCES
Outcome = dict[str, Any]  # a row of OUTCOMES; without the numbers where there is an error
Result = tuple[pa.Table, list[Outcome]]

key = itemgetter(*KEY)


def result_of(
    transcript: Transcript, stretch: Stretch, start: float, warnings: Sequence[str]
) -> tuple[list[Row], Outcome]:
    """The utterances and the outcome of a stretch that starts at `start` seconds of its file."""
    duration = stretch.whole_seconds or start + transcript.duration
    rows = [_row(segment, stretch.path, start, duration, transcript.model) for segment in transcript.segments]
    return rows, {
        **{name: getattr(stretch, name) for name in KEY},
        "seconds": round(transcript.duration, 3),
        "duration": round(duration, 3),
        "utterances": len(rows),
        "words": len(transcript.words),
        "speech_seconds": round(sum(row["end"] - row["start"] for row in rows), 3),
        "confidence": _mean([word.confidence for word in transcript.words]),
        "warnings": [*warnings, *transcript.warnings],
        "error": None,
    }


def failure_of(stretch: Stretch, reason: object) -> Outcome:
    """The outcome of a stretch that gave nothing."""
    return {name: getattr(stretch, name) for name in KEY} | {"error": " ".join(str(reason).split())}


def _row(segment: Segment, path: str, start: float, duration: float, model: str) -> Row:
    words = [
        {
            "text": word.text,
            "start": round(start + word.start, 3),
            "end": round(start + word.end, 3),
            "confidence": round(word.confidence, 4),
        }
        for word in segment.words
    ]
    return {
        "path": path,
        "start": round(start + segment.start, 3),
        "end": round(start + segment.end, 3),
        "text": segment.text,
        "words": words,
        "confidence": _mean([word["confidence"] for word in words]),
        "channel": segment.channel,
        "duration": round(duration, 3),
        "model": model,
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard in the folder of results."""
    return folder / "utterances" / f"{number:05}.parquet"


def read_outcomes(folder: Path, number: int) -> list[Outcome]:
    """The outcomes of a shard that is done."""
    return json.loads(parquet.read_metadata(shard_path(folder, number)).metadata[b"outcomes"])


def write_shard(folder: Path, number: int, results: Sequence[Result]) -> None:
    """Writes the results of all pieces of a shard, or joins to it what was tried again."""
    tables = [utterances for utterances, _ in results]
    outcomes = {key(outcome): outcome for _, part in results for outcome in part}
    path = shard_path(folder, number)
    if path.exists():
        tables.append(parquet.read_table(path).replace_schema_metadata())
        outcomes = {key(outcome): outcome for outcome in read_outcomes(folder, number)} | outcomes
    order = [(name, "ascending") for name in ("path", "start", "end", "channel")]
    utterances = pa.concat_tables(tables).combine_chunks().sort_by(order)
    ordered = sorted(outcomes.values(), key=itemgetter("path", "start"))
    metadata = {"outcomes": json.dumps(ordered, ensure_ascii=False)}
    write_table(path, utterances.replace_schema_metadata(metadata))


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file, whole or not at all."""
    with replacing(path) as partial:
        parquet.write_table(table, partial, compression="zstd")


def write_outcomes(folder: Path, outcomes: Sequence[Outcome]) -> int:
    """Writes outcomes.parquet of all inputs and failures.jsonl of those that failed; how many these are."""
    write_table(folder / "outcomes.parquet", pa.Table.from_pylist(list(outcomes), OUTCOMES))
    failures = [{name: outcome[name] for name in (*KEY, "error")} for outcome in outcomes if outcome["error"]]
    lines = [json.dumps(failure, ensure_ascii=False) + "\n" for failure in failures]
    write_whole(folder / "failures.jsonl", "".join(lines))
    return len(failures)


def summary(outcomes: Sequence[Outcome]) -> str:
    """Hours, words, mean confidence, share of silence, inputs and failures, a line each."""
    done = [outcome for outcome in outcomes if not outcome["error"]]
    seconds, words, speech = (
        sum(row[name] for row in done) for name in ("seconds", "words", "speech_seconds")
    )
    confidence = sum(row["confidence"] * row["words"] for row in done if row["words"])
    lines = {
        "hours": f"{seconds / 3600:.2f}",
        "words": f"{words}",
        "mean confidence": f"{confidence / words:.3f}" if words else "none",
        "silence": f"{100 * (1 - speech / seconds):.1f} %" if seconds else "none",
        "without speech": f"{sum(not row['words'] for row in done)} inputs",
        "failed": f"{len(outcomes) - len(done)} of {len(outcomes)} inputs",
    }
    return "\n".join(f"{name:16}{value}" for name, value in lines.items())


def write_transcripts(folder: Path, shards: int, format: str, model: str, language: str) -> None:
    """Writes a file of this format for every recording of which nothing failed, its parts joined.

    The folder FORMAT has the folders of the archive. talk.mp3 is talk.srt there, or talk.mp3.srt if there is
    a talk.wav beside it.
    """
    names = _names({outcome["path"] for number in range(shards) for outcome in read_outcomes(folder, number)})
    for path, group in groupby(_by_recording(folder, shards), itemgetter(0)):
        _, outcomes, rows = (list(chain.from_iterable(parts)) for parts in zip(*group, strict=True))
        if any(outcome["error"] for outcome in outcomes):
            continue
        duration = max(outcome["duration"] for outcome in outcomes)
        warnings = tuple(warning for outcome in outcomes for warning in outcome["warnings"])
        transcript = Transcript(tuple(map(_segment, rows)), language, duration, model, warnings)
        place = folder / format / f"{names[path]}.{format}"
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, transcript.render(format))


def _segment(row: Row) -> Segment:
    words = tuple(Word(**word) for word in row["words"])
    return Segment(row["start"], row["end"], row["text"], words, (), row["channel"])


def _names(paths: Iterable[str]) -> dict[str, str]:
    """For each path what is below the folder of all, without the suffix where that is unique."""
    paths = sorted(paths)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(paths[0], paths[-1], strict=False))
    root = "".join(letter for letter, _ in same).rfind("/") + 1
    stems = {path: path[root:].removesuffix(PurePath(path).suffix) for path in paths}
    times = Counter(stems.values())
    return {path: stem if times[stem] == 1 else path[root:] for path, stem in stems.items()}


def _by_recording(folder: Path, shards: int) -> Iterator[tuple[str, list[Outcome], list[Row]]]:
    """Path, outcomes and utterances of each recording in each shard; a long one goes on in the next ones."""
    for number in range(shards):
        rows = parquet.read_table(shard_path(folder, number)).to_pylist()
        utterances = {path: list(group) for path, group in groupby(rows, itemgetter("path"))}
        for path, outcomes in groupby(read_outcomes(folder, number), itemgetter("path")):
            yield path, list(outcomes), utterances.get(path, [])
