"""What an attention decoder writes on its own, and what it looks at."""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from asr.decoders import RecurrentDecoder
from asr.model import SpeechModel
from asr.vocabulary import Vocabulary
from training.callbacks import DevSet
from training.scoring.alignment import align
from training.scoring.measures import count_table, rates

MOST_TOKENS = 48  # of one utterance; the longest text of AN4 has 25


class Writer(keras.Model):
    """Writes the most probable token each time; its step is compiled, as `predict` compiles it.

    Args:
      decoder: a recurrent one, of whose past only the last state counts.
      vocabulary: its tokens.
    """

    def __init__(self, decoder: RecurrentDecoder, vocabulary: Vocabulary):
        super().__init__(name="writer")
        self.decoder, self.vocabulary = decoder, vocabulary
        self.built = True

    def call(self, inputs):
        logits, past = self.decoder.step(*(inputs[name] for name in ("tokens", "past", "memory", "lengths")))
        return logits[:, -1], past[:, :, -1:]

    def write(self, encoded: np.ndarray, lengths: np.ndarray) -> list[str]:
        """The text of each utterance.

        Args:
          encoded: outputs of the encoders below the decoder, [batch, steps, width].
          lengths: [batch] in steps.
        """
        memory, end = ops.convert_to_numpy(self.decoder.memory(encoded)), self.vocabulary.end
        past = np.zeros((2, len(lengths), 1, self.decoder.width), "float32")
        given, written = self.vocabulary.prompt, np.zeros((len(lengths), 0), "int32")
        for place in range(len(given) - 1 + MOST_TOKENS):
            known = place < len(given)
            tokens = np.full((len(lengths), 1), given[place], "int32") if known else written[:, -1:]
            logits, past = self.predict_on_batch(
                {"tokens": tokens, "past": past, "memory": memory, "lengths": lengths}
            )
            if place >= len(given) - 1:
                written = np.column_stack([written, logits.argmax(axis=1).astype("int32")])
            if (written == end).any(axis=1).all():
                break
        rows = [row[: row.index(end)] if end in row else row for row in written.tolist()]
        return [self.vocabulary.decode(row).strip() for row in rows]


class DecoderErrorRate(keras.callbacks.Callback):
    """WER of the decoder alone on a dev set after every epoch, into the logs as "wer_decoder" in percent."""

    def __init__(self, dev: DevSet, vocabulary: Vocabulary):
        super().__init__()
        self.dev, self.vocabulary = dev, vocabulary

    def on_train_begin(self, logs=None):
        self.writer = Writer(self.model.network.decoder, self.vocabulary)

    def on_epoch_end(self, epoch, logs=None):
        texts = []
        for index in range(len(self.dev.batches)):
            inputs, _ = self.dev.batches[index]
            outputs = self.model.predict_on_batch(inputs)
            texts += self.writer.write(outputs["encoded"], outputs["encoded_lengths"])
        counts = count_table(align(self.dev.texts, texts)).sum(axis=0)
        logs["wer_decoder"] = 100 * float(rates(counts)["wer"])


class Gaze(NamedTuple):
    """What the decoder looked at.

    Attributes:
      tokens: the text of each token, and "end".
      weights: how much each looks at each step, [tokens, steps]; rows sum to 1.
      features: of the utterance, [frames, mels].
      seconds: its length.
    """

    tokens: list[str]
    weights: np.ndarray
    features: np.ndarray
    seconds: float


def gaze(network: SpeechModel, vocabulary: Vocabulary, samples: np.ndarray, text: str) -> Gaze:
    """What the decoder looks at, as it is given a text of an utterance, before it writes each token."""
    x, length = network.read(samples[None], np.array([len(samples)], "int32"))
    outputs = network.heads(x, length)
    decoder, memory = network.decoder, network.decoder.memory(outputs["encoded"])
    ids = vocabulary.around(text)
    given = np.array([ids[:-1]], "int32")
    _, past = decoder.step(given, decoder.empty_past(1), memory, outputs["encoded_lengths"])
    states = past[0, 0, len(vocabulary.prompt) - 1 :]  # h, from which each next token is predicted
    steps = memory.shape[2]
    weights = decoder.weights_of(states, memory[0], np.ones((1, steps), bool))
    written = ids[len(vocabulary.prompt) :]
    tokens = [*(vocabulary.decode([id]).strip() for id in written[:-1]), "end"]
    features = ops.convert_to_numpy(x[0])
    return Gaze(tokens, ops.convert_to_numpy(weights), features, steps * network.step_seconds)
