r"""Other recognisers beside ours: same speech, same threads, same normaliser, each in a process of its own.

    python -m training.benchmark peers dev-read.jsonl --model english --faster-whisper DIR --pocketsphinx
    python -m training.benchmark peers dev-read.jsonl --model english --faster-whisper DIR --output report \
        --conditions clean,noise:10,reverb --noise noise.jsonl

None of them is needed by the project: install those that you want to compare with.
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
    others = {"whisper.cpp": options.whisper_cpp, "vosk": options.vosk, "pocketsphinx": options.pocketsphinx}
    systems += [System(kind, kind, model) for kind, model in others.items() if model is not None]
    if not systems:
        raise ValueError("no recogniser to run; give --model, or the model of an installed peer")
    return evaluate(references, systems, options, ["hark", "benchmark", *options.arguments])
