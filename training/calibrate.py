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
from itertools import islice

import numpy as np
import scipy.optimize

from asr.bundle import Bundle
from asr.decoding import Hypothesis
from asr.decoding.beam import BeamDecoder
from asr.decoding.greedy import greedy_decode
from asr.decoding.joint import JointDecoder
from asr.decoding.words import UNCALIBRATED, confidences, word_evidence
from asr.engine import Encoding, Engine
from asr.files import write_whole
from asr.tokenizer import Tokenizer
from training.manifest import Entry, read_manifest
from training.scoring.alignment import align
from training.scoring.calibration import calibration
from training.scoring.console import progress
from training.tune_decoder import readable

Decode = Callable[[Encoding], Hypothesis]


def fit(evidence: np.ndarray, is_right: np.ndarray) -> dict[str, float]:
    """The weights for words_of, from evidence [words, 3] and whether each word is right [words]."""
    names = list(UNCALIBRATED)

    def negative_log_likelihood(weights: np.ndarray) -> float:
        probabilities = confidences(evidence, dict(zip(names, weights, strict=True)))
        likelihood = np.where(is_right, probabilities, 1 - probabilities)
        return -np.log(np.maximum(likelihood, np.finfo(float).tiny)).mean()

    found = scipy.optimize.minimize(negative_log_likelihood, list(UNCALIBRATED.values())).x
    return {name: round(float(weight), 4) for name, weight in zip(names, found, strict=True)}


def judged_words(
    engine: Engine, tokenizer: Tokenizer, entries: Sequence[Entry], decoders: Mapping[str, Decode]
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], int]:
    """By decoder the evidence [words, 3] of all words of its texts, and whether each is right [words].

    Also returns the number of entries that were left out, of which it warns. Raises ValueError if all were.
    """
    hypotheses: dict[str, list[Hypothesis]] = {name: [] for name in decoders}
    evidence: dict[str, list[np.ndarray]] = {name: [] for name in decoders}
    references: list[str] = []
    for entry, samples in readable(tokenizer, progress("recognising")(entries)):
        references.append(tokenizer.normalize(entry.text))
        encoding = engine.encode(samples)
        for name, decode in decoders.items():
            hypothesis = decode(encoding)
            hypotheses[name].append(hypothesis)
            evidence[name].append(word_evidence(hypothesis, encoding.log_probs, tokenizer))
    if not references:
        raise ValueError("no utterance is left to calibrate on")
    judged = {
        name: (np.concatenate(evidence[name]), _right(references, hypotheses[name], tokenizer))
        for name in decoders
    }
    return judged, len(entries) - len(references)


def _right(references: Sequence[str], hypotheses: Sequence[Hypothesis], tokenizer: Tokenizer) -> np.ndarray:
    """Whether each word of all hypotheses is right: a written one if all is that is spoken for it."""
    found: list[bool] = []
    texts = [tokenizer.decode(hypothesis.units) for hypothesis in hypotheses]
    for hypothesis, operations in zip(hypotheses, align(references, texts).operations, strict=True):
        spoken = iter(
            operation.kind == "equal"
            for operation in operations
            for _ in range(operation.hypothesis_start, operation.hypothesis_end)
        )
        for word in hypothesis.written:
            if word.spoken:
                found.append(all(list(islice(spoken, word.spoken))))
        found += spoken
    return np.array(found, bool)


def report(evidence: np.ndarray, is_right: np.ndarray, fitted: Mapping[str, float]) -> str:
    """What the calibration did to the words that it was fitted on."""
    before = calibration(confidences(evidence, UNCALIBRATED), is_right)
    after = calibration(confidences(evidence, fitted), is_right)
    return f"{after.words} words, AUC {after.auc:.3f}, calibration error {before.ece:.3f} → {after.ece:.3f}"


def calibrate(bundle: Bundle, entries: Sequence[Entry]) -> int:
    """Writes the `confidence` of a bundle's model.json, fitted on these entries.

    Returns the number of entries that were left out. Raises ValueError where the rest is too little.
    """
    engine, beam = Engine.load(bundle), BeamDecoder.from_bundle(bundle)
    decoders: dict[str, Decode] = {
        "greedy": lambda encoding: greedy_decode(encoding.log_probs, bundle.tokenizer)
    }
    if bundle.has_language_model:
        decoders["beam"] = lambda encoding: beam.decode(encoding.log_probs)[0]
    if bundle.vocabulary is not None:
        joint = JointDecoder(engine.step, bundle.vocabulary, bundle.tokenizer, beam, bundle.step_seconds)
        decoders["joint"] = lambda encoding: joint.decode(encoding.log_probs, encoding.memory)[0]
    judged, left_out = judged_words(engine, bundle.tokenizer, entries, decoders)
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
    return left_out


def main(options: argparse.Namespace) -> int:
    """`hark calibrate`."""
    entries = [entry for manifest in options.manifests for entry in read_manifest(manifest)]
    return int(calibrate(Bundle.load(options.model), entries) > 0)
