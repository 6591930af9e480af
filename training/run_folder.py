"""The folder of a run: what is needed to know and to repeat it.

config.yaml (resolved), tokenizer.json, environment.json, metrics.jsonl, tensorboard/, checkpoint.safetensors,
best.safetensors (weights of the best epoch, if `keep` asks for it), cache/ (decoded sound and outputs of
frozen encoders; may be deleted), and at the end bundle/.
"""

import json
import sys
from pathlib import Path

import keras
import yaml

from asr.files import write_whole
from training.callbacks import CHECKPOINT
from training.config import ConfigError, RunConfig
from training.environment import environment


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
    if changed := ", ".join(key for key in content if before.get(key) != content[key]):
        print(f"{path}: resumed with another {changed}: not the same run any more", file=sys.stderr)
    write_whole(path, yaml.safe_dump(content, sort_keys=False))
    found = environment(sys.argv) | {"backend": keras.backend.backend()}
    write_whole(folder / "environment.json", json.dumps(found, indent=2) + "\n")
    return folder
