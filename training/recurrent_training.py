"""Trains a recurrent language model: python -m training.language_model recurrent TEXT... --output DIR

Noise contrastive estimation (Gutmann & Hyvärinen 2010; Mnih & Teh 2012): the model learns to tell each word
of the text from words drawn by their frequency. It never sums over the vocabulary, and what it says is
nevertheless close to normalised.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np
from keras import ops

from asr.decoding.ngram import END, UNKNOWN
from asr.decoding.recurrent_lm import END_ID, UNKNOWN_ID, RecurrentModel
from asr.encoders.recurrence import lstm
from training.cache import fingerprint
from training.callbacks import CHECKPOINT, ExactResume, MetricsLog, StopAtNaN, fit, go_on
from training.data import Batches
from training.optimizer import WarmupLinearDecay

NOISE_WORDS = 1024  # drawn for each batch
BATCH_WORDS = 2560
LONGEST = 60  # words; longer sentences are cut
LEARNING_RATE = 2e-3
WARMUP_SHARE = 0.02
DROPOUT = 0.1
CHECKPOINT_STEPS = 500


class NoiseContrastiveLM(keras.Model):
    """The weights of a RecurrentModel, and their loss.

    Call with {"inputs": word ids [batch, places], each sentence between two `</s>`, "lengths": [batch]}.
    Returns the states [batch, places - 1, width] that foretell each next word.

    Args:
      word_shares: [words], how often each word stands in the text; the noise is drawn so.
      width: of the embedding and of the LSTM.
    """

    def __init__(self, word_shares: np.ndarray, width: int, seed: int = 0):
        super().__init__(name="recurrent_lm")
        self.log_shares = np.log(word_shares).astype("float32")
        self.width = width
        self.noise = keras.random.SeedGenerator(seed)
        self.drop = keras.layers.Dropout(DROPOUT, seed=seed)

    def build(self, input_shape=None):
        words, width = len(self.log_shares), self.width
        start = keras.initializers.RandomNormal(stddev=width**-0.5, seed=0)
        self.embedding = self.add_weight(shape=(words, width), initializer=start, name="embedding")
        self.kernel = self.add_weight(shape=(width, 4 * width), name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(width, 4 * width), initializer="orthogonal", name="recurrent_kernel"
        )
        # Gates that forget nothing at first (Gers et al. 2000), as in keras.layers.LSTM.
        self.bias = self.add_weight(shape=(4 * width,), initializer="zeros", name="bias")
        self.bias.assign(np.repeat([0.0, 1.0, 0.0, 0.0], width))
        # A model that knows no more than the frequencies is where the training begins.
        self.word_bias = self.add_weight(shape=(words,), initializer="zeros", name="word_bias")
        self.word_bias.assign(self.log_shares)

    def call(self, inputs, training=False):
        words = ops.cast(inputs["inputs"], "int32")[:, :-1]
        x = self.drop(ops.take(self.embedding, words, axis=0), training=training)
        projected = ops.transpose(ops.matmul(x, self.kernel) + self.bias, (1, 0, 2))
        hidden = lstm(projected[:, None], self.recurrent_kernel[None])[:, 0]
        return self.drop(ops.transpose(hidden, (1, 0, 2)), training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Nats a word by which the model fails to tell words from noise."""
        words = ops.cast(x["inputs"], "int32")[:, 1:]
        counted = ops.arange(ops.shape(words)[1])[None] < ops.cast(x["lengths"], "int32")[:, None] - 1
        noise = keras.random.categorical(self.log_shares[None], NOISE_WORDS, seed=self.noise)[0]
        offered = self.log_shares + np.log(NOISE_WORDS).astype("float32")

        def scores(ids):
            return ops.take(self.word_bias, ids) - ops.take(offered, ids)

        true = ops.sum(y_pred * ops.take(self.embedding, words, axis=0), axis=-1) + scores(words)
        false = ops.matmul(y_pred, ops.transpose(ops.take(self.embedding, noise, axis=0))) + scores(noise)
        losses = ops.softplus(-true) + ops.sum(ops.softplus(false), axis=-1)
        counted = ops.cast(counted, losses.dtype)
        return ops.sum(losses * counted) / ops.sum(counted)


def train(
    blocks: Iterable[list[str]], output: Path, words: int, width: int, epochs: int, seed: int = 0
) -> RecurrentModel:
    """A model of the sentences; goes on from the checkpoint in `output` where there is one.

    Args:
      blocks: normalised sentences.
      output: folder of checkpoint.safetensors and metrics.jsonl.
      words: size of the vocabulary, `</s>` and `<unk>` included; the most frequent ones.
      width: of the embedding and the LSTM.
      epochs: passes over the text.

    Raises:
      ValueError: no text, or the folder holds a run of another text or size.
      FloatingPointError: the loss is no number any more.
    """
    vocabulary, sentences, shares = read(blocks, words)
    _claim(output, fingerprint([vocabulary, shares.tolist(), len(sentences), width, epochs, seed]))
    keras.utils.set_random_seed(seed)
    model = NoiseContrastiveLM(shares, width, seed)
    model.build()
    batches = Batches(
        lengths=np.array([len(sentence) for sentence in sentences]),
        read=lambda i, random: sentences[i],
        rate=1,
        batch_seconds=BATCH_WORDS,
        seed=seed,
    )
    steps = len(batches) * epochs
    schedule = WarmupLinearDecay(LEARNING_RATE, int(WARMUP_SHARE * steps), steps)
    model.compile(optimizer=keras.optimizers.Adam(schedule, global_clipnorm=1.0), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    checkpoint = output / CHECKPOINT
    go_on(batches, checkpoint)
    callbacks = [
        StopAtNaN(),
        ExactResume(checkpoint, CHECKPOINT_STEPS, batches),
        MetricsLog(output / "metrics.jsonl"),
    ]
    fit(model, batches, epochs, checkpoint, callbacks)
    tensors = ("embedding", "kernel", "recurrent_kernel", "bias", "word_bias")
    return RecurrentModel(vocabulary, **{n: ops.convert_to_numpy(getattr(model, n)) for n in tensors})


def _claim(output: Path, run: str) -> None:
    """Other weights would fit another vocabulary, too, and mean nothing."""
    path = output / "run.txt"
    if (output / CHECKPOINT).exists() and not (path.exists() and path.read_text() == run):
        raise ValueError(f"{output}: holds a run of another text or size; choose another --output")
    path.write_text(run)


def read(blocks: Iterable[list[str]], words: int) -> tuple[list[str], list[np.ndarray], np.ndarray]:
    """Vocabulary, sentences as float32 ids between two `</s>`, and each word's share of the text."""
    lines = [line.split() for block in blocks for line in block]
    counts = Counter(word for line in lines for word in line)
    if not counts:
        raise ValueError("the text has no words")
    kept = [word for word, _ in counts.most_common(words - 2)]
    vocabulary = [END, UNKNOWN, *kept]
    ids = {word: id for id, word in enumerate(vocabulary)}
    sentences = []
    for line in lines:
        numbers = [ids.get(word, UNKNOWN_ID) for word in line[:LONGEST]]
        sentences.append(np.array([END_ID, *numbers, END_ID], dtype="float32"))
    numbers = np.concatenate([sentence[1:] for sentence in sentences]).astype(int)
    shares = np.bincount(numbers, minlength=len(vocabulary)) + 1.0
    return vocabulary, sentences, shares / shares.sum()
