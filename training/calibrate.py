"""Fit how far a model's word confidence can be trusted: python -m training.calibrate MANIFEST... --model DIR

Recognises the manifests with each decoder, finds which words are right, and writes the `confidence` of
model.json: for each decoder the weights of the evidence for a word (`asr.decoding.words.word_evidence`) with
the highest likelihood (logistic regression, after Platt 1999). Run it after training.tune_decoder.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("calibrate")

import argparse
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy.optimize

from asr.bundle import Bundle
from asr.decoding import Hypothesis
from asr.decoding.beam import BeamDecoder
from asr.decoding.greedy import greedy_decode
from asr.decoding.words import UNCALIBRATED, confidences, word_evidence
from asr.engine import Engine
from asr.files import write_whole
from training.manifest import Entry, read_manifest
from training.scoring.alignment import align
from training.scoring.calibration import calibration
from training.scoring.console import progress
from training.tune_decoder import readable

Decode = Callable[[np.ndarray], Hypothesis]


def fit(evidence: np.ndarray, is_right: np.ndarray) -> dict[str, float]:
    """The weights for words_of, from evidence [words, 2] and whether each word is right [words]."""
    names = list(UNCALIBRATED)

    def negative_log_likelihood(weights: np.ndarray) -> float:
        probabilities = confidences(evidence, dict(zip(names, weights, strict=True)))
        likelihood = np.where(is_right, probabilities, 1 - probabilities)
        return -np.log(np.maximum(likelihood, np.finfo(float).tiny)).mean()

    found = scipy.optimize.minimize(negative_log_likelihood, list(UNCALIBRATED.values())).x
    return {name: round(float(weight), 4) for name, weight in zip(names, found, strict=True)}


def judged_words(
    bundle: Bundle, entries: Sequence[Entry], decoders: Mapping[str, Decode]
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], int]:
    """By decoder the evidence [words, 2] of all words of its texts, and whether each is right [words].

    Also returns the number of entries that were left out, of which it warns. Raises ValueError if all were.
    """
    engine = Engine.load(bundle)
    texts: dict[str, list[str]] = {name: [] for name in decoders}
    evidence: dict[str, list[np.ndarray]] = {name: [] for name in decoders}
    references: list[str] = []
    for entry, samples in readable(bundle.tokenizer, progress("recognising")(entries)):
        references.append(bundle.tokenizer.normalize(entry.text))
        log_probs = engine.log_probs(samples)
        for name, decode in decoders.items():
            hypothesis = decode(log_probs)
            texts[name].append(hypothesis.text)
            evidence[name].append(word_evidence(hypothesis, log_probs, bundle.tokenizer))
    if not references:
        raise ValueError("no utterance is left to calibrate on")
    judged = {name: (np.concatenate(evidence[name]), _right(references, texts[name])) for name in decoders}
    return judged, len(entries) - len(references)


def _right(references: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """Whether each word of all texts is right."""
    is_right = [
        operation.kind == "equal"
        for operations in align(references, texts).operations
        for operation in operations
        for _ in range(operation.hypothesis_start, operation.hypothesis_end)
    ]
    return np.array(is_right, bool)


def report(evidence: np.ndarray, is_right: np.ndarray, fitted: Mapping[str, float]) -> str:
    """What the calibration did to the words that it was fitted on."""
    before = calibration(confidences(evidence, UNCALIBRATED), is_right)
    after = calibration(confidences(evidence, fitted), is_right)
    return f"{after.words} words, AUC {after.auc:.3f}, calibration error {before.ece:.3f} → {after.ece:.3f}"


def main(options: argparse.Namespace) -> int:
    """`hark calibrate`."""
    bundle = Bundle.load(options.model)
    decoders: dict[str, Decode] = {"greedy": lambda log_probs: greedy_decode(log_probs, bundle.tokenizer)}
    if bundle.has_language_model:
        beam = BeamDecoder.from_bundle(bundle)
        decoders["beam"] = lambda log_probs: beam.decode(log_probs)[0]
    entries = [entry for manifest in options.manifests for entry in read_manifest(manifest)]
    judged, left_out = judged_words(bundle, entries, decoders)
    for name, (_, is_right) in judged.items():
        if is_right.all() or not is_right.any():
            raise ValueError(f"{name}: all words are right, or none: give more speech to calibrate on")
    fitted = {name: fit(*words) for name, words in judged.items()}
    path = bundle.directory / "model.json"
    config = {**bundle.config, "confidence": fitted}
    write_whole(path, json.dumps(config, indent=2) + "\n")
    for name, (evidence, is_right) in judged.items():
        print(f"{name}: {report(evidence, is_right, fitted[name])}")
    print(f"wrote {path}")
    return int(left_out > 0)
