"""A recurrent language model of words: python -m training.language_model recurrent TEXT... --output DIR

Mikolov et al. 2010, "Recurrent neural network based language model", with an LSTM. It is trained by
noise contrastive estimation (Gutmann & Hyvärinen 2010; Mnih & Teh 2012): it learns to tell each word of the
text from words drawn by their frequency, without a sum over the vocabulary.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import keras
import numpy as np
from keras import ops
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from asr.decoding.ngram import END, UNKNOWN, LanguageModelError
from asr.encoders import RecurrentEncoder
from asr.files import write_whole
from training.cache import fingerprint
from training.callbacks import CHECKPOINT, ExactResume, MetricsLog, StopAtNaN, fit, go_on
from training.data import Batches
from training.optimizer import WarmupLinearDecay

END_ID, UNKNOWN_ID = 0, 1  # a sentence begins with the end of the one before
NOISE_WORDS = 1024  # drawn for each batch
BATCH_WORDS = 2560
LONGEST = 60  # words; longer sentences are cut
LEARNING_RATE = 2e-3
WARMUP = 0.02  # of all steps
DROPOUT = 0.1
CHECKPOINT_STEPS = 500
LOGITS_WORDS = 256  # words whose logits are in memory at once


class NoiseContrastiveLM(keras.Model):
    """One recurrent layer between an embedding and its transpose, and its loss.

    Call with {"inputs": word ids [batch, places], each sentence between two `</s>`, "lengths": [batch]}.
    Returns the states [batch, places - 1, width] that predict each next word.

    Args:
      vocabulary: the words; `</s>` and `<unk>` are the first two, or ValueError is raised.
      width: of the embedding and of the layer.
      frequencies: [words], relative ones of the words in the text; only training uses them, for the noise.
      cell: "simple" (Mikolov's), "lstm" or "gru"; the command line trains and loads LSTMs only.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        width: int,
        frequencies: np.ndarray | None = None,
        seed: int = 0,
        cell: str = "lstm",
    ):
        super().__init__(name="recurrent_lm")
        if list(vocabulary[:2]) != [END, UNKNOWN]:
            raise ValueError(f"the first words are not {END} and {UNKNOWN}")
        self.ids = {word: id for id, word in enumerate(vocabulary)}
        if frequencies is None:
            frequencies = np.full(len(vocabulary), 1 / len(vocabulary))
        self.log_frequencies = np.log(frequencies).astype("float32")
        self.noise = keras.random.SeedGenerator(seed)
        start = keras.initializers.RandomNormal(stddev=width**-0.5, seed=0)
        self.embedding = keras.layers.Embedding(len(vocabulary), width, embeddings_initializer=start)
        self.recurrence = RecurrentEncoder(width, 1, cell, bidirectional=False, dropout=DROPOUT)
        self.drop = keras.layers.Dropout(DROPOUT, seed=seed)

    def build(self, input_shape=None):
        self.embedding.build()
        self.recurrence.build((None, None, self.embedding.output_dim))
        self.word_bias = self.add_weight(shape=(len(self.log_frequencies),), name="word_bias")
        self.word_bias.assign(self.log_frequencies)  # at first it knows no more than the frequencies

    def call(self, inputs, training=False):
        words = ops.cast(inputs["inputs"], "int32")[:, :-1]
        lengths = ops.cast(inputs["lengths"], "int32") - 1
        hidden, _ = self.recurrence(self.embedding(words), lengths, training=training)
        return self.drop(hidden, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Nats a word by which the model fails to tell words from noise."""
        words = ops.cast(x["inputs"], "int32")[:, 1:]
        counted = ops.arange(ops.shape(words)[1])[None] < ops.cast(x["lengths"], "int32")[:, None] - 1
        noise = keras.random.categorical(self.log_frequencies[None], NOISE_WORDS, seed=self.noise)[0]
        offset = self.word_bias - self.log_frequencies - np.log(NOISE_WORDS).astype("float32")
        true = ops.sum(y_pred * self.embedding(words), axis=-1) + ops.take(offset, words)
        false = ops.matmul(y_pred, ops.transpose(self.embedding(noise))) + ops.take(offset, noise)
        losses = ops.softplus(-true) + ops.sum(ops.softplus(false), axis=-1)
        counted = ops.cast(counted, losses.dtype)
        return ops.sum(losses * counted) / ops.sum(counted)

    def log_probs(self, words: Sequence[str]) -> np.ndarray:
        """ln P(word | words before) of every word of a sentence and of its end, float32 [words + 1]."""
        ids = np.array([END_ID, *(self.ids.get(word, UNKNOWN_ID) for word in words), END_ID])
        states = self.predict_on_batch({"inputs": ids[None], "lengths": np.array([len(ids)])})[0]
        found = []
        for first in range(1, len(ids), LOGITS_WORDS):
            next_ids = ids[first : first + LOGITS_WORDS, None]
            before = states[first - 1 : first - 1 + len(next_ids)]
            logits = ops.matmul(before, ops.transpose(self.embedding.embeddings)) + self.word_bias
            found.append(ops.take_along_axis(ops.log_softmax(logits), next_ids, axis=1)[:, 0])
        return ops.convert_to_numpy(ops.concatenate(found))

    def tensors(self) -> dict[str, keras.Variable]:
        """The weights by their names in a file; kernels and bias with the gates in Keras' order."""
        cell = self.recurrence.forwards[0].cell
        named = {name: getattr(cell, name) for name in ("kernel", "recurrent_kernel", "bias")}
        return named | {"embedding": self.embedding.embeddings, "word_bias": self.word_bias}


def save(model: NoiseContrastiveLM, path: Path) -> None:
    """Writes the weights and the vocabulary. Raises OSError."""
    tensors = {name: ops.convert_to_numpy(variable) for name, variable in model.tensors().items()}
    write_whole(path, to_safetensors(tensors, metadata={"vocabulary": json.dumps(list(model.ids))}))


def load(path: Path | str) -> NoiseContrastiveLM:
    """What `save` wrote. Raises LanguageModelError for anything else."""
    try:
        with safe_open(path, "numpy") as file:
            vocabulary = json.loads(file.metadata()["vocabulary"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model = NoiseContrastiveLM(vocabulary, tensors["embedding"].shape[-1])
        model.build()
        for name, variable in model.tensors().items():
            if not np.isfinite(tensors[name]).all():
                raise ValueError(f"{name} has non-finite values")
            variable.assign(tensors[name])
        return model
    except FileNotFoundError:
        raise LanguageModelError(f"{path}: No such file or directory") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise LanguageModelError(
            f"{path}: not a recurrent language model ({error}); train it again"
        ) from None


def train(
    blocks: Iterable[list[str]],
    output: Path,
    words: int,
    width: int,
    epochs: int,
    seed: int = 0,
    cell: str = "lstm",
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> NoiseContrastiveLM:
    """A model of the sentences; resumes from the checkpoint in `output` where there is one.

    Args:
      blocks: normalised sentences.
      output: folder of checkpoint.safetensors and metrics.jsonl.
      words: size of the vocabulary, `</s>` and `<unk>` included; the most frequent ones.
      width: of the embedding and the recurrent layer.
      epochs: passes over the text.
      cell: of the recurrent layer.
      callbacks: further ones; what they log of an epoch goes into metrics.jsonl.

    Raises:
      ValueError: the folder holds a run of another text or size, whose weights may fit in shape only.
      FloatingPointError: the loss is not finite.
    """
    vocabulary, sentences, frequencies = read(blocks, words)
    run, path = output / "run.txt", output / CHECKPOINT
    key = fingerprint([vocabulary, frequencies.tolist(), len(sentences), width, epochs, seed])
    if path.exists() and not (run.exists() and run.read_text() == key):
        raise ValueError(f"{output}: holds a run of another text or size; choose another --output")
    run.write_text(key)
    keras.utils.set_random_seed(seed)
    model = NoiseContrastiveLM(vocabulary, width, frequencies, seed, cell)
    model.build()
    lengths = np.array([len(sentence) for sentence in sentences])
    batches = Batches(lengths, lambda i, random: sentences[i], rate=1, batch_seconds=BATCH_WORDS, seed=seed)
    steps = len(batches) * epochs
    schedule = WarmupLinearDecay(LEARNING_RATE, int(WARMUP * steps), steps)
    model.compile(optimizer=keras.optimizers.Adam(schedule, global_clipnorm=1.0), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    go_on(batches, path)
    resume = ExactResume(path, CHECKPOINT_STEPS, batches)
    log = MetricsLog(output / "metrics.jsonl")
    fit(model, batches, epochs, path, [StopAtNaN(), *callbacks, resume, log])
    return model


def read(blocks: Iterable[list[str]], words: int) -> tuple[list[str], list[np.ndarray], np.ndarray]:
    """Vocabulary, sentences as float32 ids between two `</s>`, and each word's relative frequency."""
    lines = [line.split() for block in blocks for line in block]
    most_common = Counter(word for line in lines for word in line).most_common(words - 2)
    vocabulary = [END, UNKNOWN, *(word for word, _ in most_common)]
    ids = {word: id for id, word in enumerate(vocabulary)}
    sentences = []
    for line in lines:
        inner = [ids.get(word, UNKNOWN_ID) for word in line[:LONGEST]]
        sentences.append(np.array([END_ID, *inner, END_ID], dtype="float32"))
    predicted = np.concatenate([sentence[1:] for sentence in sentences]).astype(int)
    counts = np.bincount(predicted, minlength=len(vocabulary)) + 1.0
    return vocabulary, sentences, counts / counts.sum()
