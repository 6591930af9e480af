"""The command `hark`: the options of every verb, and how it ends when something is wrong.

A verb imports the module that does its work only when it runs, so that `hark train --help` need not wait for
TensorFlow. `python -m training.VERB` are the same commands. asr.cli says what the exit codes mean.
"""

import argparse
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from asr import DECODERS
from asr.cli import add_command, build_parser, execute, positive
from asr.cli import add_commands as add_recognition
from asr.serve.command import add_serving
from training.corpora import CORPORA
from training.scoring.normalizers import DEFAULT, DESCRIPTIONS

MAX_ORDER = 6  # of n-grams
# Information; and that there is no NVIDIA driver, an error to tensorflow though not to tensorflow-cpu.
STARTUP_LOG = re.compile(rb"I\d{4} |WARNING: All log|To enable the following|E\d{4} .*cuInit: .*\(303\)")
BUNDLE = "name or folder of a model"
TEXT = "a sentence a line; .xz, .gz or plain, - for standard input"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; `arguments` are those after `hark`."""
    groups = {
        "Recognise": add_recognition,
        "Serve": partial(add_serving, tabs={"Evaluate": _evaluate_tab}),
        "Train": add_training,
        "Measure": add_measuring,
    }
    return execute(build_parser(groups), arguments)


def run_as_module(*verb: str) -> None:
    """Ends the process as `hark VERB ...` does: what python -m training.VERB runs."""
    sys.exit(main([*verb, *sys.argv[1:]]))


def working(module: str, *needed: str) -> Callable[[argparse.Namespace], int | None]:
    """The function `main` of a module of `training`, which is imported when it is called.

    Args:
      needed: modules that it imports later.
    """

    def run(options: argparse.Namespace) -> int | None:
        with without_startup_log():
            modules = [importlib.import_module(name) for name in (f"training.{module}", *needed)]
            if "tensorflow" in sys.modules:
                sys.modules["tensorflow"].config.list_physical_devices()  # here, since it logs something, too
        return modules[0].main(options)

    return run


def share(text: str) -> tuple[str, float]:
    """A type for arguments: ("decoder", 0.2) from "decoder=0.2", ("", 0.2) from "0.2"."""
    part, _, value = text.rpartition("=")
    try:
        if 0 <= float(value) <= 1:
            return part, float(value)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no share from 0 to 1")


def _evaluate_tab(*page) -> None:
    from training.evaluate_tab import evaluate_tab

    evaluate_tab(*page)


def _train(options: argparse.Namespace) -> None:
    from training.config import load_config

    # Before Keras, which takes seconds to load.
    several = [] if options.processes is None else ["devices=all"]
    options.config = load_config(options.config, [*options.overrides, *several])
    working("train")(options)


@contextmanager
def without_startup_log() -> Iterator[None]:
    """Drops what TensorFlow logs for information while it is loaded, before it obeys TF_CPP_MIN_LOG_LEVEL."""
    with tempfile.TemporaryFile() as log:
        sys.stderr.flush()
        standard_error = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(standard_error, 2)
            os.close(standard_error)
            log.seek(0)
            for line in log:
                if not STARTUP_LOG.match(line):
                    os.write(2, line)


def add_training(commands) -> None:
    """Adds the verbs that make models."""
    details = (
        "docs/training.md describes the keys of CONFIG. The weights come from the first of:\n"
        "this run's own checkpoint (--resume), `initialize`, chance."
    )
    add = add_command(
        commands, "train", "train an acoustic model", _train, details, more="overrides"
    ).add_argument
    add("config", type=Path, metavar="CONFIG", help="a YAML file")
    add("overrides", nargs="*", default=(), metavar="key=value", help="e.g. optimizer.learning_rate=1e-4")
    add("--resume", action="store_true", help="go on from the run folder's checkpoint")
    add("--coordinator", metavar="HOST:PORT", help="of process 0, where several processes meet")
    add("--process", type=int, metavar="I", help="number of this process, from 0")
    add("--processes", type=positive, metavar="N", help="that train together, one for each machine")

    summary = "train a model further on your own recordings, and measure what that gains"
    details = (
        "hark finetune mine/train.jsonl --output runs/mine\n"
        "It checks the recordings first, and goes on if it was stopped. docs/training.md says more."
    )
    run = working("finetune", "keras")
    add = add_command(commands, "finetune", summary, run, details, more="manifests").add_argument
    _add_manifests(add, "speech with transcripts, a minute or more")
    add("--from", dest="start", default="english", metavar="MODEL", help=f"{BUNDLE} (english)")
    add("--output", type=Path, required=True, metavar="DIR", help="of the run, the new model and the report")

    summary = "make manifests of a corpus"
    add = add_command(commands, "prepare", summary, working("prepare")).add_argument
    add("corpus", choices=CORPORA, metavar="CORPUS", help=", ".join(CORPORA))
    add("source", type=Path, metavar="SOURCE", help="its folder")
    add("--output", type=Path, required=True, metavar="DIR", help="of the manifests")
    add("--download", action="store_true", help="fetch the corpus into SOURCE first")

    summary = "texts for recordings that have none, by a larger Whisper"
    add = add_command(commands, "label", summary, working("label")).add_argument
    add("folder", type=Path, metavar="FOLDER", help="of recordings, perhaps in a folder for each speaker")
    add("--teacher", required=True, help="the model that writes, such as an imported Whisper")
    add("--model", default="english", help="one with a CTC head, that must agree (english)")
    add("--output", type=Path, required=True, metavar="DIR", help="of labelled.jsonl")

    summary = "write a model's graph for ONNX Runtime"
    add = add_command(commands, "export", summary, working("export")).add_argument
    add("bundle", metavar="MODEL", help=BUNDLE)
    add("--int8", action="store_true", help="weights and computation in 8 bits: half the size, and faster")

    summary = "fit a model's word confidence"
    add = add_command(commands, "calibrate", summary, working("calibrate"), more="manifests").add_argument
    _add_manifests(add, "speech that was not trained on")
    add("--model", required=True, help=BUNDLE)

    summary = "find the weights of the decoder and its language model"
    details = "The language model of --lm is copied into the model; without --lm its own is tuned."
    run = working("tune_decoder")
    add = add_command(commands, "tune-decoder", summary, run, details, more="manifests").add_argument
    _add_manifests(add, "speech that was not trained on")
    add("--model", required=True, help=BUNDLE)
    add("--lm", type=Path, metavar="DIR", help="folder with ngram.bin")

    add_language_models(commands)

    summary = "convert a Whisper model"
    details = (
        "hark import-whisper tiny.en/model.bin runs/tiny.en\n"
        "hark import-whisper tiny.en/model.bin runs/small --tokens 24000 --texts books.txt.xz train.jsonl"
    )
    run = working("import_whisper")
    add = add_command(commands, "import-whisper", summary, run, details).add_argument
    add("file", type=Path, metavar="FILE", help="a Whisper model: .pt, .safetensors, model.bin")
    add("output", type=Path, metavar="DIR", help="folder of the new model")
    add("--vocabulary", type=Path, metavar="FILE", help="its tokens (beside FILE), or OpenAI's .tiktoken")
    add("--language", default="en", metavar="CODE", help="what is spoken (en)")
    add("--tokens", type=positive, metavar="N", help="keep those that are most frequent in the texts")
    add("--texts", nargs="+", type=Path, default=[], metavar="TEXT", help="text files or manifests")

    summary = "average two models of one kind"
    add = add_command(commands, "average", summary, working("average", "keras")).add_argument
    add("first", metavar="FIRST", help=BUNDLE)
    add(
        "second", metavar="SECOND", help="another of the same kind, or an imported Whisper that it began with"
    )
    described = "weight of the second, from 0 to 1; of a part: decoder=0.2 (0.5)"
    add("--share", type=share, nargs="+", default=[], metavar="SHARE", help=described)
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the new model")


def add_language_models(commands) -> None:
    """Adds `language-model` with its verbs."""
    summary = "language models from text: ngram, recurrent, convert, perplexity"
    details = (
        "Texts are normalised as transcripts are: write numbers out first, they would be lost.\n"
        "Of a manifest the texts are taken."
    )
    verbs = _add_group(commands, "language-model", summary, "COMMAND", details)
    run = working("language_model")

    summary = "estimate an n-gram model (modified Kneser–Ney)"
    add = add_command(verbs, "ngram", summary, run, more="text").add_argument
    add("text", nargs="+", metavar="TEXT", help=TEXT)
    add("--order", type=int, default=3, choices=range(1, MAX_ORDER + 1))
    drop = "for each order, drop n-grams that occur so often or less"
    add("--prune", type=int, nargs="+", default=[0], help=drop)
    add("--vocabulary", type=int, help="keep so many of the most frequent words")
    _add_ngram_output(add)

    summary = "train a recurrent model, or continue to"
    add = add_command(verbs, "recurrent", summary, run, more="text").add_argument
    add("text", nargs="+", metavar="TEXT", help=TEXT)
    add("--output", type=Path, required=True, metavar="DIR", help="folder for recurrent.safetensors")
    add("--words", type=int, default=10_000, help="keep so many of the most frequent (10000)")
    add("--width", type=int, default=256, help="of the embedding and the LSTM (256)")
    add("--epochs", type=int, default=3)

    add = add_command(verbs, "convert", "make an ARPA file compact", run).add_argument
    add("model", metavar="MODEL", help="an ARPA file; .xz, .gz or plain")
    _add_ngram_output(add)

    summary = "perplexity and OOV rate of texts"
    add = add_command(verbs, "perplexity", summary, run, more="text").add_argument
    add("model", metavar="MODEL", help="ngram.bin, an ARPA file or recurrent.safetensors")
    add("text", nargs="+", metavar="TEXT", help=TEXT)


def add_measuring(commands) -> None:
    """Adds the verbs that measure models."""
    summary = "word error rates with intervals, groups, conditions and a report"
    details = (
        "hark evaluate dev-read.jsonl dev-other.jsonl --model english --output report\n"
        "hark evaluate dev-read.jsonl --model english --hypotheses whisper.jsonl --by gender\n"
        "hark evaluate references.stm --hypotheses ours.ctm theirs.ctm --normalizer none"
    )
    run = working("evaluate")
    add = add_command(commands, "evaluate", summary, run, details, more="manifests").add_argument
    _add_manifests(add, "manifest (.jsonl .csv .tsv), .trn or .stm", metavar="REFERENCES")
    add("--model", nargs="+", default=[], help="names or folders of models")
    add("--decoder", nargs="+", choices=DECODERS, help="(the model's own choice)")
    add("--hypotheses", nargs="+", default=[], type=Path, help="of other recognisers: .jsonl, .trn or .ctm")
    add("--by", nargs="+", default=[], metavar="FIELD", help="fields of the manifest to group by")
    _add_scoring_options(add)
    written = "writes report.html, report.md, results.json, utterances.jsonl, hypotheses/"
    add("--output", type=Path, metavar="DIR", help=written)
    add_benchmarks(commands)


def add_benchmarks(commands) -> None:
    """Adds `benchmark` with its verbs."""
    summary = "measure Hark: bulk, hotwords, peers, sequence-models, server, streaming, training"
    verbs = _add_group(commands, "benchmark", summary, "BENCHMARK")

    summary = "throughput of `hark bulk` with several workers, beside one"
    add = add_command(verbs, "bulk", summary, working("benchmarks.bulk")).add_argument
    add("source", metavar="SOURCE", help="as of hark bulk; some 10 minutes of sound for each worker")
    add("--model", default="english", help=f"{BUNDLE} (english)")
    add("--decoder", choices=DECODERS, help="(the model's own choice)")
    add("--workers", type=positive, default=os.cpu_count(), metavar="N", help="(one for each core)")
    add("--repeats", type=positive, default=3, metavar="N", help="runs of each (3)")

    summary = "how many hot words are found, and what they cost elsewhere"
    run = working("benchmarks.hotwords")
    add = add_command(verbs, "hotwords", summary, run, more="manifests").add_argument
    _add_manifests(add, "speech with transcripts")
    add("--model", required=True, help=f"{BUNDLE} with a tuned language model")
    add("--words", type=positive, default=50, help="how many (50)")

    summary = "word error rate and speed beside faster-whisper"
    details = (
        "hark benchmark peers dev-read.jsonl --model english --faster-whisper DIR\n"
        "It needs pip install faster-whisper; for the texts of others use hark evaluate --hypotheses."
    )
    run = working("benchmarks.peers")
    add = add_command(verbs, "peers", summary, run, details, more="manifests").add_argument
    _add_manifests(add, "speech with transcripts")
    add("--model", nargs="+", default=[], help="our models; differences are to the first")
    add("--decoder", nargs="+", choices=DECODERS, default=[""], help="(the model's own choice)")
    add("--faster-whisper", metavar="DIR", help="a CTranslate2 model, run in int8")
    add("--beam", nargs="+", type=int, default=[5], help="of faster-whisper (5, as its own)")
    _add_scoring_options(add)
    add("--limit", type=positive, metavar="N", help="only the first N utterances")
    add("--output", type=Path, metavar="DIR", help="writes the report of `hark evaluate` too")

    summary = "errors, waiting times and memory of `hark serve` under many clients"
    add = add_command(verbs, "server", summary, working("benchmarks.server"), more="manifests").add_argument
    _add_manifests(add, "speech to send")
    add("--model", metavar="DIR", help="of the server (as hark serve)")
    add("--workers", type=positive, default=1, metavar="N", help="of the server (1)")
    add("--clients", type=positive, default=20, metavar="N", help="at once (20)")
    add("--minutes", type=positive, default=10, metavar="M", help="(10)")

    summary = "how soon live text comes, how often it changes, and what it costs"
    run = working("benchmarks.streaming")
    add = add_command(verbs, "streaming", summary, run, more="manifests").add_argument
    _add_manifests(add, "speech with transcripts")
    add("--model", default="english", help=f"{BUNDLE} (english)")
    add("--decoder", choices=DECODERS, help="of the finals (the model's own choice)")
    add("--limit", type=positive, metavar="N", help="only the first N recordings")
    add("--streams", type=positive, metavar="N", help="play N streams at once, too, in real time")
    add("--seconds", type=positive, default=60, help="how long (60)")

    summary = "how fast this machine trains, and what takes the time"
    add = add_command(verbs, "training", summary, working("benchmarks.training")).add_argument
    add("--batch", type=positive, default=16, metavar="N", help="utterances a step (16)")
    add("--seconds", type=positive, default=8, help="length of an utterance (8)")
    add("--bfloat16", action="store_true", help="mixed precision")

    summary = (
        "recurrent networks, attention, Transformer and Conformer on the same speech, and language models"
    )
    details = (
        "hark benchmark sequence-models an4-train.jsonl an4-test.jsonl books.txt.xz --output runs/textbook\n"
        "Makes the numbers and figures of docs/sequence-models.md. What DIR has already is not trained again."
    )
    run = working("benchmarks.sequence_models")
    add = add_command(verbs, "sequence-models", summary, run, details).add_argument
    add("train", type=Path, metavar="TRAIN", help="manifest of speech to train on")
    add("test", type=Path, metavar="TEST", help="manifest of speech to measure on")
    add("text", metavar="TEXT", help=f"for the language models: {TEXT}")
    add("--output", type=Path, required=True, metavar="DIR", help="of the runs, numbers and figures")
    add("--epochs", type=positive, metavar="N", help="of each acoustic model (as in the configuration)")
    add("--docs", type=Path, metavar="DIR", help="writes numbers and figures into sequence-models.md there")


def _add_group(commands, name: str, summary: str, metavar: str, details: str = ""):
    """Adds a command that consists of commands; returns what they are added to."""
    description = f"{summary}\n\n{details}".strip()
    style = argparse.RawDescriptionHelpFormatter
    parser = commands.add_parser(name, help=summary, description=description, formatter_class=style)
    parser.summary = summary
    return parser.add_subparsers(required=True, metavar=metavar, dest="action")


def _add_manifests(add: Callable, help: str, metavar: str = "MANIFEST") -> None:
    add("manifests", nargs="+", type=Path, metavar=metavar, help=help)


def _add_ngram_output(add: Callable) -> None:
    add("--output", type=Path, required=True, metavar="DIR", help="folder for ngram.bin")
    add("--arpa", action="store_true", help="write ngram.arpa too")


def _add_scoring_options(add: Callable) -> None:
    degraded = "degrades the sound: clean,noise:20,noise:5,reverb,telephone,gain:-20,speed:0.9,mp3:16"
    add("--conditions", default=["clean"], type=lambda text: text.split(","), help=degraded)
    add("--noise", type=Path, metavar="MANIFEST", help="noise for the conditions")
    add("--seed", type=int, default=0, help="of the conditions")
    names = "; ".join(f"{name}: {what}" for name, what in DESCRIPTIONS.items())
    help = f"({' '.join(DEFAULT)}) each gives every WER, the first also confusions and confidence. {names}"
    add("--normalizer", nargs="+", choices=DESCRIPTIONS, default=DEFAULT, help=help)
    add("--cased", action="store_true", help="score capitals and punctuation, of references with text_cased")
    add("--threads", type=positive, default=2, help="of the CPU (2)")
