"""Measure Hark, beside its peers in the same run: python -m training.benchmark BENCHMARK ..."""

from training.commands import run_as_module

if __name__ == "__main__":
    run_as_module("benchmark")
