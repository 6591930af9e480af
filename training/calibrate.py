"""Fit how far a model's word confidence can be trusted: python -m training.calibrate MANIFEST... --model DIR

Hears the manifests with each decoder, looks which words are right, and writes the `confidence` of model.json:
for each decoder the scale and offset on the logit of a word's raw confidence that make its likelihood largest
(Platt 1999). A language model makes words right of which the sound alone was not sure: hence one for each.
Run it after training.tune_decoder.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.optimize

from asr.bundle import Bundle, BundleError
from asr.decoding.greedy import confidence_logit
from asr.engine import Engine
from asr.recognizer import DECODERS, Recognizer
from training.manifest import ManifestError
from training.scoring.alignment import align
from training.scoring.calibration import calibration
from training.scoring.console import progress
from training.scoring.systems import hear
from training.scoring.transcripts import read_references


def fit(raw: np.ndarray, is_right: np.ndarray) -> dict[str, float]:
    """Scale and offset, from raw confidences [words] in [0, 1] and whether each word is right."""
    logits = confidence_logit(raw)

    def negative_log_likelihood(parameters):
        margin = np.where(is_right, 1, -1) * (parameters[0] * logits + parameters[1])
        return np.logaddexp(0, -margin).mean()

    scale, offset = scipy.optimize.minimize(negative_log_likelihood, [1.0, 0.0]).x
    return {"scale": round(float(scale), 4), "offset": round(float(offset), 4)}


def judged_words(
    recognizer: Recognizer, manifests: Sequence[Path], decoder: str
) -> tuple[np.ndarray, np.ndarray]:
    """Confidence [words] of all that was heard in the manifests, and whether it is right [words]."""
    references = [reference for manifest in manifests for reference in read_references(manifest)]
    heard = hear(recognizer, references, decoder, progress=progress(f"hearing, {decoder}")).heard
    references = [reference for reference in references if reference.id in heard]
    operations = align(
        [one.text for one in references], [heard[one.id].text for one in references]
    ).operations
    confidence, is_right = [], []
    for reference, runs in zip(references, operations, strict=True):
        words = heard[reference.id].words
        right = np.zeros(len(words), dtype=bool)
        for run in runs:
            if run.kind == "equal":
                right[run.hypothesis_start : run.hypothesis_end] = True
        confidence += [word.confidence for word in words]
        is_right += list(right)
    return np.array(confidence), np.array(is_right)


def report(raw: np.ndarray, is_right: np.ndarray, fitted: dict[str, float]) -> str:
    """What the calibration did to the words that it was fitted on."""
    before = calibration(raw, is_right)
    logits = fitted["scale"] * confidence_logit(raw) + fitted["offset"]
    after = calibration(1 / (1 + np.exp(-logits)), is_right)
    return f"{after.words} words, AUC {after.auc:.3f}, calibration error {before.ece:.3f} → {after.ece:.3f}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.calibrate", description=__doc__.split("\n")[0])
    parser.add_argument("manifests", nargs="+", type=Path, help="speech that the model was not trained on")
    parser.add_argument("--model", required=True, help="name or folder of a bundle")
    options = parser.parse_args(arguments)
    try:
        bundle = Bundle.load(options.model)
        config = {key: value for key, value in bundle.config.items() if key != "confidence"}
        raw_bundle = Bundle(bundle.directory, config, bundle.units)
        recognizer = Recognizer(raw_bundle, Engine.load(raw_bundle))
        decoders = DECODERS if bundle.has_language_model else ["greedy"]
        judged = {decoder: judged_words(recognizer, options.manifests, decoder) for decoder in decoders}
        for decoder, (_, is_right) in judged.items():
            if is_right.all() or not is_right.any():
                raise ValueError(f"{decoder}: all words are right, or none: give more speech to calibrate on")
    except (BundleError, ManifestError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    fitted = {decoder: fit(*words) for decoder, words in judged.items()}
    path = bundle.directory / "model.json"
    path.write_text(json.dumps({**config, "confidence": fitted}, indent=2) + "\n", encoding="utf-8")
    for decoder, (raw, is_right) in judged.items():
        print(f"{decoder}: {report(raw, is_right, fitted[decoder])}")
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
