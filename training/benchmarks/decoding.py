"""What decoding costs and what it saves: greedy, beam search with language model and hot words, a peer.

    python -m training.benchmark decoding dev-read.jsonl --model english

All decoders get the same log-probs, and the peer the same language model. Times are of the processor (all
threads), so that a busy machine changes them little; each is the best of three runs. The peer is
ctc-beam-decoder (C++ with KenLM); it is left out where it is not installed: pip install ctc-beam-decoder
"""

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asr.bundle import Bundle
from asr.decoding.arpa import write_arpa
from asr.decoding.beam import BeamDecoder
from asr.decoding.greedy import greedy_decode
from asr.decoding.ngram import NgramModel
from asr.engine import Engine
from training.manifest import read_manifest
from training.scoring.console import progress
from training.tune_decoder import hear, transcribe, word_errors

RUNS = 3
HOT_PHRASES = 100
PEER = "ctc-beam-decoder"
# ctc-beam-decoder's own defaults, as pyctcdecode has them; beside them it is run with our weights.
PEER_ALPHA, PEER_BETA = 0.5, 1.5


class Row(NamedTuple):
    """A decoder's word error rate, and its processor time in milliseconds for a second of sound."""

    name: str
    wer_percent: float
    milliseconds: float


def main(options: argparse.Namespace) -> None:
    """Prints one table."""
    _compare(options.manifests, Bundle.load(options.model))


def _compare(manifests: Sequence[Path], bundle: Bundle) -> None:
    if not bundle.has_language_model:
        raise ValueError(f"{bundle.name} has no language model: run python -m training.tune_decoder")
    entries = [entry for path in manifests for entry in read_manifest(path)]
    engine = Engine.load(bundle)
    start = time.process_time()
    heard = hear(engine, bundle.tokenizer, progress("hearing")(entries))
    acoustic_seconds = time.process_time() - start
    sound_seconds = bundle.step_seconds * sum(len(part) for one in heard for part in one.log_probs)
    words = sum(len(one.text.split()) for one in heard)

    rows = []
    for name, decode in _decoders(bundle):
        decode(heard[0].log_probs[0])  # compiles, or loads what was compiled
        seconds = []
        for _ in range(RUNS):
            start = time.process_time()
            texts = transcribe(decode, heard)
            seconds.append(time.process_time() - start)
        errors = word_errors(heard, texts)
        rows.append(Row(name, 100 * errors / words, 1000 * min(seconds) / sound_seconds))

    acoustic = 1000 * acoustic_seconds / sound_seconds
    print(
        f"{sound_seconds:.0f} s of speech, {words} words; reading and acoustic model: {acoustic:.2f} ms/s\n"
    )
    print(f"{'decoder':44} {'WER %':>6} {'ms/s':>7} {'of acoustic':>12}")
    for row in rows:
        share = row.milliseconds / acoustic
        print(f"{row.name:44} {row.wer_percent:6.2f} {row.milliseconds:7.2f} {share:12.1%}")


def _decoders(bundle: Bundle) -> Iterator[tuple[str, Callable[[np.ndarray], str]]]:
    """Names, and functions from log-probs to text."""
    tuned = BeamDecoder.from_bundle(bundle)
    beam = tuned.pruning.beam
    phrases = _phrases(tuned.language_model)
    with_phrases = BeamDecoder.from_bundle(bundle, phrases)
    without = BeamDecoder(bundle.tokenizer, beam=beam)
    yield "greedy", lambda log_probs: greedy_decode(log_probs, bundle.tokenizer).text
    yield f"beam {beam}, no language model", lambda log_probs: without.decode(log_probs)[0].text
    for width in (beam // 4, beam // 2, beam):
        decoder = BeamDecoder(
            bundle.tokenizer,
            tuned.language_model,
            beam=width,
            alpha=tuned.alpha,
            beta=tuned.beta,
            unknown_penalty=tuned.unknown_penalty,
        )
        yield (
            f"beam {width}, {tuned.language_model.order}-gram",
            lambda log_probs, decoder=decoder: decoder.decode(log_probs)[0].text,
        )
    name = f"beam {beam}, {tuned.language_model.order}-gram, {HOT_PHRASES} hot words"
    yield name, lambda log_probs: with_phrases.decode(log_probs)[0].text
    if importlib.util.find_spec("ctc_beam_decoder") is None:
        print(f"{PEER} is left out: pip install {PEER}", file=sys.stderr)
        return
    weights = {"our weights": (tuned.alpha, tuned.beta), "its weights": (PEER_ALPHA, PEER_BETA)}
    for whose, (alpha, beta) in weights.items():
        peer = _peer(bundle, tuned.language_model, alpha, beta)
        yield (
            f"{PEER}, beam {beam}, {whose}",
            lambda log_probs, peer=peer: peer.decode(log_probs, beam_width=beam),
        )


def _phrases(model: NgramModel) -> list[str]:
    """Words from all over the vocabulary: what they cost is measured, not what they are good for."""
    words = [model.word(id) for id in np.linspace(0, model.vocabulary_size - 1, 2 * HOT_PHRASES).astype(int)]
    return [word for word in words if word.isalpha() and len(word) > 3][:HOT_PHRASES]


def _peer(bundle: Bundle, model: NgramModel, alpha: float, beta: float):
    from ctc_beam_decoder import build_ctcdecoder

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.arpa"
        write_arpa(model, path)
        return build_ctcdecoder(list(bundle.tokenizer.symbols), str(path), alpha=alpha, beta=beta)
