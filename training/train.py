"""Train an acoustic model: python -m training.train CONFIG [key=value ...] [--resume]

The weights come from the first of: this run's own checkpoint (--resume), `initialize`, chance.
The run folder holds what is needed to know and to repeat it: config.yaml (resolved), environment.json,
metrics.jsonl, tensorboard/, checkpoint.safetensors, and at the end bundle/.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import yaml
from rich.console import Console
from rich.progress import track
from safetensors import safe_open
from safetensors.numpy import load_file

from asr.audio import SAMPLE_RATE, AudioError
from asr.bundle import Bundle, BundleError, save_bundle, weights_digest, weights_path
from asr.ctc import required_steps
from asr.engine import Engine
from asr.features import FRAME_SECONDS
from asr.model import CTCModel
from asr.tokenizer import Tokenizer
from training.augmentation import augment
from training.cache import Ragged
from training.callbacks import (
    CHECKPOINT,
    DevSet,
    ExactResume,
    MetricsLog,
    StopAtNaN,
    WordErrorRate,
    fit,
)
from training.config import ConfigError, Run, load_config
from training.data import Batches, decode_audio, fingerprint, speech_seconds, to_float
from training.import_whisper import WeightsError, assign_whisper
from training.manifest import Entry, ManifestError, read_manifest

DEV_BATCH_SECONDS = 240.0


class ScaledAdamW(keras.optimizers.AdamW):
    """AdamW whose learning rate is multiplied for variables under given names, e.g. {"encoder_0": 0.1}."""

    def __init__(self, *args, multipliers: dict[str, float] | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.multipliers = multipliers or {}

    def update_step(self, gradient, variable, learning_rate):
        # On TensorFlow `variable` is a bare tf.Variable, which does not know its path.
        names = self._trainable_variables[self._get_variable_index(variable)].path.split("/")
        scale = next((value for name, value in self.multipliers.items() if name in names), 1.0)
        super().update_step(gradient, variable, learning_rate * scale)


@keras.saving.register_keras_serializable("hark")
class WarmUpAndFall(keras.optimizers.schedules.LearningRateSchedule):
    """A line up to `peak` over `warmup_steps`, then a line down to zero at `steps`."""

    def __init__(self, peak: float, warmup_steps: int, steps: int):
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.steps = steps

    def __call__(self, step):
        step = keras.ops.cast(step, "float32") + 1.0
        up = step / max(1, self.warmup_steps)
        down = (self.steps - step) / max(1, self.steps - self.warmup_steps)
        return self.peak * keras.ops.clip(keras.ops.minimum(up, down), 0.0, 1.0)

    def get_config(self):
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "steps": self.steps}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. optimizer.learning_rate=1e-4")
    parser.add_argument("--resume", action="store_true", help="go on from the run folder's checkpoint")
    options = parser.parse_intermixed_args(arguments)  # key=value may stand behind --resume
    try:
        train(load_config(options.config, options.overrides), options.resume)
    except (ConfigError, ManifestError, AudioError, WeightsError, BundleError, FloatingPointError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def train(run: Run, resume: bool = False) -> Path:
    """Trains as the config says and returns the folder of the bundle."""
    checkpoint = run.output / CHECKPOINT
    if checkpoint.exists() and not resume:
        raise ConfigError(f"{run.output}: holds a run already; add --resume, or choose another output")
    run.output.mkdir(parents=True, exist_ok=True)
    describe_run(run)
    keras.utils.set_random_seed(run.seed)
    if run.mixed_precision:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")

    tokenizer = Tokenizer.characters()
    model = CTCModel(units=tokenizer.size, **run.model.model_dump()).build_for()
    if run.initialize is not None:
        initialize(model, run.initialize)
    for encoder in model.encoders[: run.frozen_encoders]:
        encoder.trainable = False
    model.cached_encoders = run.frozen_encoders
    model.consistency = run.consistency

    batches = training_batches(run, model, tokenizer)
    sets = [dev_set(run, model, tokenizer, manifest) for manifest in run.data.dev]
    steps = len(batches) * run.epochs
    schedule = WarmUpAndFall(run.optimizer.learning_rate, int(run.optimizer.warmup_share * steps), steps)
    optimizer = ScaledAdamW(
        schedule,
        multipliers=run.optimizer.multipliers,
        weight_decay=run.optimizer.weight_decay,
        global_clipnorm=run.optimizer.clip_norm,
    )
    model.compile(optimizer=optimizer, jit_compile="auto" if keras.backend.backend() == "jax" else False)
    optimizer.build(model.trainable_variables)

    callbacks = [
        StopAtNaN(),  # before the checkpoint is written
        WordErrorRate(sets, tokenizer),
        ExactResume(checkpoint, run.checkpoint_steps, batches),
        MetricsLog(run.output / "metrics.jsonl"),
        keras.callbacks.TensorBoard(run.output / "tensorboard", write_graph=False),
    ]
    if keras.backend.backend() != "tensorflow":
        callbacks.pop()  # Keras' TensorBoard callback writes through TensorFlow
    fit(model, batches, run.epochs, checkpoint, callbacks)
    model.cached_encoders = 0
    return save_bundle(run.output / "bundle", model, tokenizer)


def describe_run(run: Run) -> None:
    """Writes the resolved config and where it runs into the run folder."""
    config = json.loads(run.model_dump_json())
    path = run.output / "config.yaml"
    before = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else config
    changed = [key for key in config if before.get(key) != config[key]]
    if changed:
        print(
            f"{path}: resumed with another {', '.join(changed)}: not the same run any more", file=sys.stderr
        )
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    ).stdout.strip()
    installed = {package.name: package.version for package in importlib.metadata.distributions()}
    packages = ("keras", "tensorflow", "tensorflow_cpu", "jax", "numpy", "librosa", "soxr")
    environment = {
        "commit": commit,
        "command": sys.argv,
        "python": platform.python_version(),
        "backend": keras.backend.backend(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: installed[name] for name in packages if name in installed},
    }
    (run.output / "environment.json").write_text(json.dumps(environment, indent=2) + "\n", encoding="utf-8")


def initialize(model: CTCModel, source: Path) -> None:
    """Weights of a Whisper encoder, or all that fit by name and shape, of an earlier run or a bundle."""
    if source.suffix == ".safetensors":
        assign_whisper(model, load_file(source))
        return
    folder = source / "bundle" if (source / "bundle").is_dir() else source
    with safe_open(weights_path(folder), "numpy") as file:
        names = set(file.keys())
        for variable in model.variables:
            name = variable.path.partition("/")[2]
            if name in names and file.get_slice(name).get_shape() == list(variable.shape):
                variable.assign(file.get_tensor(name).astype("float32"))
            elif "seed_generator" not in name:
                print(f"{folder}: has no {name} of this shape; it starts from chance", file=sys.stderr)


def usable(entries: list[Entry], tokenizer: Tokenizer, run: Run, step_seconds: float) -> list[Entry]:
    """The entries that can be trained on; the others are named.

    Left out are those that are too long, too short for their text, or hold digits, which can be read aloud in
    several ways.
    """
    kept = []
    for entry in entries:
        needed = required_steps(tokenizer.encode(tokenizer.normalize(entry.text))) * step_seconds
        if any(character.isdigit() for character in entry.text):
            print(f"{entry.id}: left out, its text has digits: write numbers out", file=sys.stderr)
        elif entry.duration_seconds > run.data.max_seconds:
            print(f"{entry.id}: left out, {entry.duration_seconds:.1f} s is too long", file=sys.stderr)
        elif entry.duration_seconds < needed:
            print(f"{entry.id}: left out, its text needs {needed:.1f} s at least", file=sys.stderr)
        else:
            kept.append(entry)
    return kept


def training_batches(run: Run, model: CTCModel, tokenizer: Tokenizer) -> Batches:
    """Augmented batches of everything in `data.train`, and of the noise as utterances without words."""
    entries = [entry for manifest in run.data.train for entry in read_manifest(manifest)]
    entries = usable(entries, tokenizer, run, model.step_seconds)
    noises = read_manifest(run.data.noise) if run.data.noise else []
    labels = [tokenizer.encode(tokenizer.normalize(entry.text)) for entry in entries] + [[] for _ in noises]
    audio = decode_audio([*entries, *noises], run.output / "cache" / "audio", _bar("decoding"))
    sounds = [to_float(audio[i]) for i in range(len(entries), len(audio))]
    shares = run.data.augmentation.model_dump()
    print(f"{len(entries)} utterances, {speech_seconds(audio.lengths) / 3600:.1f} h", file=sys.stderr)

    def read_augmented(i: int, random: np.random.Generator) -> np.ndarray:
        return augment(to_float(audio[i]), random, shares, sounds)

    def read_clean(i: int, _: np.random.Generator) -> np.ndarray:
        return to_float(audio[i])

    options = {"labels": labels, "batch_seconds": run.data.batch_seconds, "seed": run.seed, "workers": 2}
    if run.distillation:
        model.teacher_share = run.distillation.share
        options["targets"] = teach(run, model, tokenizer, audio).__getitem__
    if not run.frozen_encoders:
        return Batches(audio.lengths, read_augmented, rate=SAMPLE_RATE, **options)
    copies = []
    for copy in range(run.cached_copies):
        read = read_augmented if copy else read_clean
        seed = run.seed + copy
        batches = Batches(audio.lengths, read, labels, SAMPLE_RATE, DEV_BATCH_SECONDS, seed=seed, workers=2)
        copies.append(EncodedSpeech(run, model, batches, f"train-{copy}"))

    def read_copy(i: int, random: np.random.Generator) -> np.ndarray:
        return copies[int(random.integers(len(copies)))].read(i)

    frame_seconds = FRAME_SECONDS * math.prod(e.subsampling for e in model.encoders[: run.frozen_encoders])
    return Batches(copies[0].lengths, read_copy, rate=1 / frame_seconds, **options)


def teach(run: Run, model: CTCModel, tokenizer: Tokenizer, audio: Ragged) -> Ragged:
    """The teacher's probabilities of every utterance, float16 [steps, units], computed once.

    Raises ConfigError for a teacher with other units or steps.
    """
    teacher = Bundle.load(run.distillation.teacher)
    if teacher.tokenizer.symbols != tokenizer.symbols or not math.isclose(
        teacher.step_seconds, model.step_seconds
    ):
        raise ConfigError(
            f"{run.distillation.teacher}: cannot teach a model of {tokenizer.size} units and steps of "
            f"{model.step_seconds:g} s, itself having {teacher.tokenizer.size} and {teacher.step_seconds:g} s"
        )
    engine = Engine.load(teacher)

    def probabilities():
        for i in _bar("asking the teacher")(range(len(audio))):
            yield np.exp(engine.log_probs([to_float(audio[i])])[0]).astype("float16")

    key = fingerprint([weights_digest(weights_path(teacher.directory)), audio.key])
    return Ragged.create(run.output / "cache" / "teacher", key, probabilities())


def dev_set(run: Run, model: CTCModel, tokenizer: Tokenizer, manifest: Path) -> DevSet:
    """Every utterance of a dev manifest, through the frozen encoders where there are any."""
    entries = read_manifest(manifest)
    audio = decode_audio(entries, run.output / "cache" / manifest.stem)
    labels = [tokenizer.encode(tokenizer.normalize(entry.text)) for entry in entries]

    def batches_of(read):
        return Batches(audio.lengths, read, labels, SAMPLE_RATE, DEV_BATCH_SECONDS)

    batches = batches_of(lambda i, _: to_float(audio[i]))
    texts = [tokenizer.normalize(entries[i].text) for utterances in batches.plan for i in utterances]
    if run.frozen_encoders:
        encoded = EncodedSpeech(run, model, batches, manifest.stem)
        batches = batches_of(lambda i, _: encoded.read(i))
    return DevSet(manifest.stem, batches, texts)


class EncodedSpeech:
    """Outputs of the frozen encoders in float16, by utterance, computed once and kept in the run folder."""

    def __init__(self, run: Run, model: CTCModel, batches: Batches, name: str):
        frozen = FrozenEncoders(model, run.frozen_encoders)
        description = [model.descriptions[: run.frozen_encoders], model.feature_options, str(run.initialize)]
        key = fingerprint([description, run.data.model_dump(mode="json"), run.seed, name])

        def outputs():
            for index in _bar(f"encoding {name}")(range(len(batches))):
                encoded, lengths = frozen.predict_on_batch(batches[index][0])
                yield from (x[:steps].astype("float16") for x, steps in zip(encoded, lengths, strict=True))

        self.arrays = Ragged.create(run.output / "cache" / f"encoded-{name}", key, outputs())
        order = np.concatenate(batches.plan)
        self.position = np.argsort(order)  # of each utterance in the cache
        self.lengths = self.arrays.lengths[self.position]

    def read(self, utterance: int) -> np.ndarray:
        """float32 [steps, width]."""
        return self.arrays[self.position[utterance]].astype("float32")


class FrozenEncoders(keras.Model):
    """The first encoders of a model, as a model: what is computed once for all epochs."""

    def __init__(self, model: CTCModel, encoders: int):
        super().__init__()
        self.model = model
        self.encoders = encoders

    def call(self, inputs):
        return self.model.encode(inputs, self.encoders)


def _bar(what: str):
    return lambda items: track(items, what, console=Console(stderr=True), disable=not sys.stderr.isatty())


if __name__ == "__main__":
    sys.exit(main())
