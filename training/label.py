"""Texts for recordings that have none: hark label FOLDER --teacher BUNDLE --output DIR

    hark import-whisper base/model.bin runs/base && hark export runs/base --int8
    hark label clips --teacher runs/base --model english --output labelled

A larger Whisper writes. The CTC head of another model guards it against repetitions and invented words, as in
`asr.decoding.joint`, and what that model writes on its own must agree. In the first 100 clips of dev-voice
Whisper base has 18 % of the words wrong, and 9 % in the 64 on which `english` differs by at most a quarter.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("label")

import argparse
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jiwer
import numpy as np

from asr.audio import SAMPLE_RATE, AudioError, load_audio
from asr.bundle import Bundle
from asr.decoding.beam import BeamDecoder
from asr.decoding.joint import JointDecoder
from asr.engine import Engine
from asr.tokenizer import Tokenizer
from training.corpora.corpus import sounds
from training.manifest import Entry, write_manifest
from training.scoring.console import progress

MAX_SECONDS = 24.0  # Whisper's encoder takes 30 s
SILENCE_SECONDS = 2.0  # after each recording, for a Whisper that was not trained on true lengths
MOST_DIFFERENT = 1 / 3  # words that the two models may write differently
FEWEST_WORDS = 2
SLOWEST_SECONDS = 1.2  # a word; where it takes longer, most is not speech, or was not written


class Texts(NamedTuple):
    """What two models write of a recording of so many seconds."""

    teacher: str
    model: str
    seconds: float


def main(options: argparse.Namespace) -> int:
    """`hark label`: writes DIR/labelled.jsonl. Returns 1 where a recording cannot be used, else 0."""
    model, teacher = Bundle.load(options.model), Bundle.load(options.teacher)
    if not model.has_ctc or model.vocabulary is None or teacher.vocabulary is None:
        raise ValueError("the teacher needs a decoder, the model a decoder and a CTC head, as english has")
    beam = BeamDecoder.from_bundle(model)
    engines = [Engine.load(bundle, threads=1) for bundle in (model, teacher)]
    decoders = [
        JointDecoder(engine.step, bundle.vocabulary, model.tokenizer, beam, model.step_seconds)
        for engine, bundle in zip(engines, (model, teacher), strict=True)
    ]

    def write(path: Path) -> Texts | str:
        try:
            samples = load_audio(path)
        except AudioError as error:
            return str(error)
        seconds = len(samples) / SAMPLE_RATE
        if not 0 < seconds <= MAX_SECONDS:
            return f"{path}: {seconds:.1f} s; cut it to {MAX_SECONDS:g} s at most"
        encoding = engines[0].encode(samples)
        longer = np.pad(samples, (0, int(SILENCE_SECONDS * SAMPLE_RATE)))
        memories = encoding.memory, engines[1].encode(longer).memory
        ours, theirs = (
            decoder.decode(encoding.log_probs, memory)[0].text
            for decoder, memory in zip(decoders, memories, strict=True)
        )
        return Texts(theirs, ours, seconds)

    paths = list(sounds(options.folder))
    if not paths:
        raise ValueError(f"{options.folder}: no recordings")
    entries, reasons, unread = [], Counter(), 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = [pool.submit(write, path) for path in paths]
        for path, future in zip(paths, progress("writing")(futures), strict=True):
            texts = future.result()
            if isinstance(texts, str):
                print(f"label: left out: {texts}", file=sys.stderr)
                unread += 1
            elif reason := doubt(texts, model.tokenizer):
                reasons[reason] += 1
            else:
                text = model.tokenizer.normalize(texts.teacher)
                speaker = path.parent.name if path.parent != options.folder else ""
                fields = {"text_cased": texts.teacher, "text_cased_from": teacher.name}
                entries.append(
                    Entry("", path.absolute(), text, texts.seconds, speaker=speaker, fields=fields)
                )
    for reason, count in reasons.most_common():
        print(f"{count} of {len(paths)} left out: {reason}")
    if not entries:
        raise ValueError(f"{options.folder}: no text that both models agree on")
    path = options.output / "labelled.jsonl"
    write_manifest(path, entries)
    hours = sum(entry.duration_seconds for entry in entries) / 3600
    print(f"{len(entries)} of {len(paths)} utterances, {hours:.2f} h, in {path}")
    return int(unread > 0)


def doubt(texts: Texts, tokenizer: Tokenizer) -> str | None:
    """Why a text is not to be trained on, or None."""
    theirs, ours = tokenizer.normalize(texts.teacher), tokenizer.normalize(texts.model)
    count = len(theirs.split())
    if tokenizer.lost(texts.teacher):
        return "digits or signs, of which it is not known how they are spoken"
    if count < FEWEST_WORDS:
        return f"fewer than {FEWEST_WORDS} words"
    if texts.seconds / count > SLOWEST_SECONDS:
        return f"more than {SLOWEST_SECONDS:g} s a word"
    if jiwer.wer(theirs, ours) > MOST_DIFFERENT:
        return "the models do not agree"
    return None
