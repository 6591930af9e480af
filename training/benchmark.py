"""Measure Hark, beside its peers in the same run: python -m training.benchmark BENCHMARK ..."""

import importlib
import sys

BENCHMARKS = {
    "hotwords": "what hot words find, and what they cost elsewhere",
    "peers": "word error rate and speed beside other recognisers",
}


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] not in BENCHMARKS:
        wants_help = bool(arguments) and arguments[0] in ("-h", "--help")
        print("usage: python -m training.benchmark BENCHMARK [--help | options]", file=sys.stderr)
        for name, what in BENCHMARKS.items():
            print(f"  {name:10}{what}", file=sys.stderr)
        return 0 if wants_help else 2
    return importlib.import_module(f"training.benchmarks.{arguments[0]}").main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
