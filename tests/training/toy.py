"""Sound that spells a text by its loudness, and a model of known output, which reads it."""

import json
from pathlib import Path

import keras
import numpy as np
import soundfile
from keras import ops

from asr.audio import SAMPLE_RATE
from asr.tokenizer import BLANK_ID, Tokenizer
from asr.vocabulary import Vocabulary

TOKENIZER = Tokenizer.characters()
VOCABULARY = Vocabulary(
    (*(bytes([byte]) for byte in range(256)), b"he", b"lo"), ("<|startoftranscript|>", "<|notimestamps|>")
)
STEP_SAMPLES = 640
PERIOD = np.tile(np.float32([1, 1, -1, -1]), STEP_SAMPLES // 4)  # 4 kHz, of mean 0 and constant loudness


def spell(text: str, tokenizer: Tokenizer = TOKENIZER) -> np.ndarray:
    """Two steps a letter, the letter and a blank: the louder, the lower the unit's id. float32 [samples]."""
    ids = [unit for id in tokenizer.encode(text) for unit in (id, BLANK_ID)]
    levels = (tokenizer.size - np.array(ids)) / (2 * tokenizer.size)
    return np.concatenate([level * PERIOD for level in levels]).astype("float32")


class Speller(keras.Model):
    """Reads what `spell` wrote. Silence, such as padding, is the last unit."""

    def call(self, inputs):
        samples, size = inputs["inputs"], TOKENIZER.size
        steps = ops.shape(samples)[1] // STEP_SAMPLES
        levels = ops.abs(samples[:, : steps * STEP_SAMPLES])
        levels = ops.mean(ops.reshape(levels, (-1, steps, STEP_SAMPLES)), axis=2)
        units = ops.clip(size - ops.round(levels * 2 * size), 0, size - 1)
        logits = 20 * ops.one_hot(ops.cast(units, "int32"), size, dtype="float32")
        return {"logits": logits, "lengths": inputs["lengths"] // STEP_SAMPLES}


def write_manifest(path: Path, rows: list[tuple[str, str]]) -> Path:
    """A manifest, and its recordings beside it, of (what is said, what the manifest says)."""
    lines = []
    for number, (said, written) in enumerate(rows):
        samples = spell(said)
        name = f"{path.stem}-{number}.wav"
        soundfile.write(path.parent / name, samples, SAMPLE_RATE)
        lines.append({"audio_filepath": name, "text": written, "duration": len(samples) / SAMPLE_RATE})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
