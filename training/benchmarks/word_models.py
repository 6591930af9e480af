"""N-grams, the recurrent language model of Mikolov et al. 2010 and an LSTM, by perplexity on the same words.

The recurrent ones learn by noise contrastive estimation, see training/recurrent_training.py.
"""

import math
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from training import recurrent_training
from training.benchmarks.step_log import StepLog, read_log, step_milliseconds
from training.language_model import measure, predictions, read_sentences
from training.ngram_estimation import estimate
from training.scoring.intervals import percentile_interval, resample

ORDERS = (2, 3, 5)
CELLS = {"simple RNN": "simple", "LSTM": "lstm"}
WIDTH, EPOCHS = 200, 4
EVERY = 4  # sentences of the text are trained on: one of so many
HELD_OUT_SHARE = 0.05  # of the text, at its end; its first sentences are measured on
HELD_OUT_SENTENCES = 2000
LEAST_COUNT = 10  # words that are rarer in the training text are unknown to all models


class Words(NamedTuple):
    """Normalised sentences to learn from and to measure on, and the words that the models know."""

    training: list[str]
    held_out: list[str]
    known: set[str]


def read_words(text: str) -> Words:
    """Splits a text. Raises ValueError where it is too short."""
    sentences = list(chain.from_iterable(read_sentences([text])))
    end = round((1 - HELD_OUT_SHARE) * len(sentences))
    training, held_out = sentences[:end:EVERY], sentences[end:][:HELD_OUT_SENTENCES]
    counts = Counter(word for sentence in training for word in sentence.split())
    # By a threshold, so that no tie at the end of a list of the most frequent ones makes a difference.
    known = {word for word, count in counts.items() if count >= LEAST_COUNT}
    if not known or not held_out:
        raise ValueError(f"{text}: too short; no word of the training part occurs {LEAST_COUNT} times")
    return Words(training, held_out, known)


class PerplexityAfterEpochs(keras.callbacks.Callback):
    """Perplexity of some sentences after every epoch, into the logs as "perplexity"."""

    def __init__(self, sentences: list[str]):
        super().__init__()
        self.sentences = sentences

    def on_epoch_end(self, epoch, logs=None):
        logs["perplexity"] = measure(self.model, [self.sentences]).perplexity


def compare_word_models(text: str, folder: Path) -> dict[str, Any]:
    """Estimates and trains all models, and measures them; what is trained already is not trained again.

    Args:
      text: one sentence a line.
      folder: of the recurrent models' checkpoints.

    Returns the sizes of the text, and of each model its parameters (of an n-gram model its n-grams),
    perplexity and 95 % interval; of those that are trained also the time of a step and the perplexity after
    each epoch.
    """
    words = read_words(text)
    models, log_probs = [], {}
    for order in ORDERS:
        with tempfile.TemporaryDirectory() as tables:
            blocks = iter([words.training])
            model = estimate(blocks, Path(tables), order, vocabulary_limit=len(words.known)).model
        log_probs[f"{order}-gram"] = [found for found, _ in predictions(model, words.held_out)]
        models.append({"name": f"{order}-gram", "parameters": sum(model.counts)})
    for name, cell in CELLS.items():
        output = folder / f"lm-{cell}"
        output.mkdir(parents=True, exist_ok=True)
        callbacks = [PerplexityAfterEpochs(words.held_out), StepLog(output / "steps.jsonl")]
        size = len(words.known) + 2  # the end of a sentence and the unknown word
        model = recurrent_training.train(
            [words.training], output, size, WIDTH, EPOCHS, cell=cell, callbacks=callbacks
        )
        log_probs[name] = [found for found, _ in predictions(model, words.held_out)]
        steps = read_log(output / "steps.jsonl", "step")
        models.append(
            {
                "name": name,
                "parameters": model.count_params(),
                "step_milliseconds": step_milliseconds(steps),
                "epochs": [row["perplexity"] for row in read_log(output / "metrics.jsonl", "epoch")],
            }
        )
    # The mean of both probabilities of each word: what one knows and the other does not.
    pair = f"{ORDERS[-1]}-gram", "LSTM"
    log_probs[" and ".join(pair)] = [
        np.logaddexp(*both) - math.log(2) for both in zip(*(log_probs[name] for name in pair), strict=True)
    ]
    models.append({"name": " and ".join(pair), "parameters": None})
    for model in models:
        model |= perplexity(log_probs[model["name"]])
    held_out = [word for sentence in words.held_out for word in sentence.split()]
    return {
        "training_words": sum(len(sentence.split()) for sentence in words.training),
        "held_out_words": len(held_out),
        "held_out_unknown": sum(word not in words.known for word in held_out),
        "held_out_sentences": len(words.held_out),
        "vocabulary": len(words.known),
        "models": models,
    }


def perplexity(log_probs: Sequence[np.ndarray]) -> dict[str, Any]:
    """Perplexity and its interval, which resamples sentences.

    Args:
      log_probs: ln P of the words and the end of each sentence.
    """
    sums = np.array([(-found.sum(), len(found)) for found in log_probs])
    nats, words = sums.sum(axis=0)
    resampled = resample(sums)
    interval = percentile_interval(np.exp(resampled[:, 0] / resampled[:, 1]), len(sums))
    return {"perplexity": float(np.exp(nats / words)), "interval": list(interval)}
