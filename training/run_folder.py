"""The folder of a run: what is needed to know and to repeat it.

config.yaml (resolved), tokenizer.json, environment.json, metrics.jsonl, tensorboard/, checkpoint.safetensors,
cache/ (decoded sound and outputs of frozen encoders; may be deleted), and at the end bundle/.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import keras
import yaml

from training.callbacks import CHECKPOINT
from training.config import ConfigError, RunConfig


def open_run_folder(config: RunConfig, resume: bool) -> Path:
    """Makes the folder and writes the config and where it runs.

    Raises ConfigError for a folder that holds a run already, without `resume`.
    """
    folder = config.output
    if (folder / CHECKPOINT).exists() and not resume:
        raise ConfigError(f"{folder}: holds a run already; add --resume, or choose another output")
    folder.mkdir(parents=True, exist_ok=True)
    content = json.loads(config.model_dump_json())
    path = folder / "config.yaml"
    before = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else content
    if changed := [key for key in content if before.get(key) != content[key]]:
        names = ", ".join(changed)
        print(f"{path}: resumed with another {names}: not the same run any more", file=sys.stderr)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    text = json.dumps(environment(), indent=2) + "\n"
    (folder / "environment.json").write_text(text, encoding="utf-8")
    return folder


def environment() -> dict:
    """Commit, command, versions and machine."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    ).stdout.strip()
    installed = {package.name: package.version for package in importlib.metadata.distributions()}
    packages = ("keras", "tensorflow", "tensorflow_cpu", "jax", "numpy", "librosa", "soxr")
    return {
        "commit": commit,
        "command": sys.argv,
        "python": platform.python_version(),
        "backend": keras.backend.backend(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: installed[name] for name in packages if name in installed},
    }
