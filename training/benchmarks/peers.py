"""faster-whisper beside our models: same speech, same threads, same normaliser, each in a process of its own.

    python -m training.benchmark peers dev-read.jsonl --model english --faster-whisper DIR

Hark does not need it: pip install faster-whisper. The texts of any other recogniser can be compared by
`hark evaluate --hypotheses`.
"""

import argparse

from training.evaluate import System, evaluate, hark_systems
from training.scoring.transcripts import read_all_references


def main(options: argparse.Namespace) -> int:
    """`hark benchmark peers`: `evaluate` with other recognisers. Returns the exit code."""
    references = read_all_references(options.manifests)[: options.limit]
    systems = hark_systems(options.model, options.decoder)
    if options.faster_whisper:
        systems += [
            System(f"faster-whisper, beam {beam}", "faster-whisper", options.faster_whisper, str(beam))
            for beam in options.beam
        ]
    if not systems:
        raise ValueError("no recogniser to run; give --model or --faster-whisper")
    return evaluate(references, systems, options, ["hark", "benchmark", *options.arguments])
