"""Average two models of one kind: python -m training.average FIRST SECOND --share 0.7 --output DIR

A mixture of a model and the same model fine-tuned is often better than either (Wortsman et al. 2022, "Robust
fine-tuning of zero-shot models"). Find the best shares on dev sets.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("average")

import argparse
from collections.abc import Mapping
from pathlib import Path

from asr.bundle import Bundle, BundleError, read_weights, weights_path, write_bundle


def average(first: Bundle, second: Bundle, shares: Mapping[str, float], output: Path) -> Path:
    """Writes the bundle (1 - share) · first + share · second, without graph and language model.

    Args:
      second: of the same kind, or a part of it, such as an imported Whisper; the rest is that of `first`.
      shares: by the beginning of the weights' names; the longest that fits counts.

    Raises BundleError where the two are no models of one kind.
    """
    if not _has(first, second):
        raise BundleError(f"{first.directory} and {second.directory} are no models of one kind")
    mixed, theirs = (read_weights(weights_path(bundle.directory)) for bundle in (first, second))
    for name in theirs:
        share = shares[max(filter(name.startswith, shares), key=len)]
        mixed[name] = ((1 - share) * mixed[name] + share * theirs[name]).astype("float16")
    # Confidence and error rates were measured on another model.
    config = {key: value for key, value in first.config.items() if key not in ("confidence", "wer")}
    return write_bundle(output, config, first.tokenizer, mixed, first.vocabulary)


def _has(whole: Bundle, part: Bundle) -> bool:
    """Whether one model has all parts of another, whatever their weights and dropout in training."""
    models = [bundle.build_model() for bundle in (whole, part)]  # which know a description's defaults
    encoders = [[one.get_config() | {"dropout": None} for one in model.encoders] for model in models]
    features = [model.features.get_config() for model in models]
    decoders = [{**(bundle.config.get("decoder") or {}), "encoders": None} for bundle in (whole, part)]
    return (
        encoders[0][: len(encoders[1])] == encoders[1]
        and features[0] == features[1]
        and (not part.has_ctc or (whole.has_ctc and whole.tokenizer == part.tokenizer))
        and (part.vocabulary is None or (whole.vocabulary == part.vocabulary and decoders[0] == decoders[1]))
    )


def main(options: argparse.Namespace) -> None:
    """`hark average`."""
    average(
        Bundle.load(options.first),
        Bundle.load(options.second),
        {"": 0.5, **dict(options.share)},
        options.output,
    )
