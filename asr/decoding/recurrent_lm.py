"""A recurrent language model of words, run in NumPy: RecurrentModel.

Mikolov et al. 2010, "Recurrent neural network based language model", with an LSTM. It is trained by noise
contrastive estimation, so that its scores are log-probs without being normalised (Chen et al. 2015,
"Recurrent neural network language model training with noise contrastive estimation for speech recognition"):
a word costs one dot product, not one with every word of the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from asr.decoding.ngram import END, UNKNOWN, LanguageModelError
from asr.files import write_whole

END_ID, UNKNOWN_ID = 0, 1  # a sentence begins with the end of the one before
_INT8_MOST = 127


class RecurrentModel:
    """One LSTM layer between an embedding and its transpose.

    Args:
      vocabulary: the words; `</s>` and `<unk>` are the first two.
      embedding: float32 [words, width], of the inputs and, transposed, of the outputs.
      kernel, recurrent_kernel: float32 [width, 4 × width]; gates: input, forget, cell, output, as in Keras.
      bias: float32 [4 × width].
      word_bias: float32 [words].

    Raises:
      ValueError: shapes that do not fit, non-finite values, or other first words.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        embedding: np.ndarray,
        kernel: np.ndarray,
        recurrent_kernel: np.ndarray,
        bias: np.ndarray,
        word_bias: np.ndarray,
    ):
        words, width = len(vocabulary), embedding.shape[-1]
        self.vocabulary = list(vocabulary)
        self.ids = {word: id for id, word in enumerate(vocabulary)}
        self.embedding, self.kernel, self.recurrent_kernel = embedding, kernel, recurrent_kernel
        self.bias, self.word_bias = bias, word_bias
        shapes = {
            "embedding": (words, width),
            "kernel": (width, 4 * width),
            "recurrent_kernel": (width, 4 * width),
            "bias": (4 * width,),
            "word_bias": (words,),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise ValueError(f"{name} is {list(array.shape)}, not {list(shape)}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} has non-finite values")
        if self.vocabulary[:2] != [END, UNKNOWN]:
            raise ValueError(f"the first words are not {END} and {UNKNOWN}")

    @classmethod
    def load(cls, path: Path | str) -> RecurrentModel:
        """What `save` wrote. Raises LanguageModelError for anything else."""
        try:
            with safe_open(path, "numpy") as file:
                vocabulary = json.loads(file.metadata()["vocabulary"])
                tensors = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
            scales = tensors.pop("embedding_scales")
            tensors["embedding"] *= scales[:, np.newaxis]
            return cls(vocabulary, **tensors)
        except FileNotFoundError:
            raise LanguageModelError(f"{path}: No such file or directory") from None
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise LanguageModelError(
                f"{path}: not a recurrent language model ({error}); train it again"
            ) from None

    def save(self, path: Path | str) -> None:
        """Writes the embedding in 8 bits with a scale for each word, all else in float16."""
        scales = (np.abs(self.embedding).max(axis=1) / _INT8_MOST).astype(np.float16)
        scales = np.maximum(scales, np.finfo(np.float16).smallest_subnormal)  # where all weights are 0
        codes = np.round(self.embedding / scales[:, np.newaxis].astype(np.float32))
        tensors = {
            "embedding": np.clip(codes, -_INT8_MOST, _INT8_MOST).astype(np.int8),
            "embedding_scales": scales,
        }
        for name in ("kernel", "recurrent_kernel", "bias", "word_bias"):
            tensors[name] = getattr(self, name).astype(np.float16)
        write_whole(Path(path), save(tensors, metadata={"vocabulary": json.dumps(self.vocabulary)}))

    def id(self, word: str) -> int:
        """The id of a word; `<unk>`'s for one that is not in the vocabulary."""
        return self.ids.get(word, UNKNOWN_ID)

    def log_probs(self, sentences: Sequence[Sequence[int]], normalized: bool = False) -> list[np.ndarray]:
        """ln P(word | words before) of every word of each sentence and of its end.

        What sentences have in common from the start is computed once: N-best texts differ in a few places.

        Args:
          sentences: ids, without `</s>`.
          normalized: divides by the sum over all words, which is slow.

        Returns:
          float32 [words + 1] for each sentence.
        """
        rows = [np.zeros(len(sentence) + 1, np.float32) for sentence in sentences]
        ended = [(*sentence, END_ID) for sentence in sentences]
        hidden = cell = np.zeros((1, self.embedding.shape[1]), np.float32)
        number = [0] * len(ended)  # of each sentence's beginning among those of the same length
        newest = [END_ID] * len(ended)
        for place in range(max(map(len, ended), default=0)):
            going_on = [i for i, sentence in enumerate(ended) if place < len(sentence)]
            beginnings: dict[tuple[int, int], int] = {}  # number of the shorter one, newest word
            for i in going_on:
                number[i] = beginnings.setdefault((number[i], newest[i]), len(beginnings))
                newest[i] = ended[i][place]
            shorter, words = map(list, zip(*beginnings, strict=True))
            hidden, cell = self._step(hidden[shorter], cell[shorter], words)
            totals = np.zeros(len(beginnings), np.float32)
            if normalized:
                totals = _log_sum_exp(hidden @ self.embedding.T + self.word_bias)
            for i in going_on:
                score = hidden[number[i]] @ self.embedding[newest[i]] + self.word_bias[newest[i]]
                rows[i][place] = score - totals[number[i]]
        return rows

    def _step(
        self, hidden: np.ndarray, cell: np.ndarray, words: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The states [beginnings, width] after one more word each."""
        sums = self.embedding[words] @ self.kernel + hidden @ self.recurrent_kernel + self.bias
        input_gate, forget_gate, candidate, output_gate = np.split(sums, 4, axis=-1)
        cell = _sigmoid(forget_gate) * cell + _sigmoid(input_gate) * np.tanh(candidate)
        return _sigmoid(output_gate) * np.tanh(cell), cell


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * np.tanh(0.5 * x) + 0.5


def _log_sum_exp(x: np.ndarray) -> np.ndarray:
    most = x.max(axis=-1)
    return most + np.log(np.exp(x - most[:, np.newaxis]).sum(axis=-1))
