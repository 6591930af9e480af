"""Average two models of one kind: python -m training.average FIRST SECOND --share 0.7 --output DIR

A mixture of a model and the same model fine-tuned is often better than either (Wortsman et al. 2022, "Robust
fine-tuning of zero-shot models"). Find the best weight on dev sets.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("average")

import argparse
from pathlib import Path

from asr.bundle import Bundle, BundleError, read_weights, weights_path, write_bundle


def average(first: Bundle, second: Bundle, weight: float, output: Path) -> Path:
    """Writes the bundle (1 - weight) · first + weight · second, without graph and language model.

    Raises BundleError where the two are no models of one kind.
    """
    if _kind(first) != _kind(second):
        raise BundleError(f"{first.directory} and {second.directory} are no models of one kind")
    ours, theirs = (read_weights(weights_path(bundle.directory)) for bundle in (first, second))
    mixed = {name: ((1 - weight) * ours[name] + weight * theirs[name]).astype("float16") for name in ours}
    # Confidence and error rates were measured on another model.
    config = {key: value for key, value in second.config.items() if key not in ("confidence", "wer")}
    return write_bundle(output, config, second.tokenizer, mixed, second.vocabulary)


def _kind(bundle: Bundle):
    """Equal for models that differ only in their weights and in the dropout they were trained with."""
    model = bundle.build_model()  # whose parts know what a description left to the defaults
    encoders = [encoder.get_config() | {"dropout": None} for encoder in model.encoders]
    heads = bundle.has_ctc, bundle.config.get("decoder"), bundle.vocabulary
    return bundle.tokenizer, model.features.get_config(), encoders, heads


def main(options: argparse.Namespace) -> None:
    """`hark average`."""
    if not 0 <= options.share <= 1:
        raise ValueError(f"--share {options.share:g} is not between 0 and 1")
    average(Bundle.load(options.first), Bundle.load(options.second), options.share, options.output)
