"""Average two models of one kind: python -m training.average FIRST SECOND --share 0.7 --output DIR

Between a model and the same one trained on, some mixture often errs less than either (Wortsman et al. 2022,
"Robust fine-tuning of zero-shot models"). Which share is best has to be measured on dev sets.
"""

import argparse
import shutil
import sys
from pathlib import Path

from safetensors.numpy import load_file, save

from asr.bundle import Bundle, BundleError, weights_path


def average(first: Bundle, second: Bundle, share: float, output: Path) -> Path:
    """Writes the bundle (1 - share) · first + share · second, without graph and language model.

    Raises BundleError where the two are no models of one kind.
    """
    ours, theirs = (load_file(weights_path(bundle.directory)) for bundle in (first, second))
    shapes = [{name: value.shape for name, value in weights.items()} for weights in (ours, theirs)]
    if shapes[0] != shapes[1] or first.units != second.units:
        raise BundleError(f"{first.directory} and {second.directory} are of different shapes")
    mixed = {
        name: ((1 - share) * ours[name].astype("float32") + share * theirs[name].astype("float32")).astype(
            "float16"
        )
        for name in ours
    }
    output.mkdir(parents=True, exist_ok=True)
    for name in ("model.json", "units.txt"):
        shutil.copyfile(second.directory / name, output / name)
    weights_path(output).write_bytes(save(mixed))
    return output


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.average", description=__doc__.split("\n")[0])
    parser.add_argument("first", help="name or folder of a bundle")
    parser.add_argument("second", help="another of the same kind")
    parser.add_argument("--share", type=float, default=0.5, help="of the second, from 0 to 1 (0.5)")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new bundle")
    options = parser.parse_args(arguments)
    if not 0 <= options.share <= 1:
        parser.error(f"--share {options.share:g} is not between 0 and 1")
    try:
        average(Bundle.load(options.first), Bundle.load(options.second), options.share, options.output)
    except BundleError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
