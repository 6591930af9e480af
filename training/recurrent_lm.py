"""A recurrent language model of words, run in NumPy: RecurrentModel.

Mikolov et al. 2010, "Recurrent neural network based language model", with an LSTM;
trained by training/recurrent_training.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy.special import expit, log_softmax

from asr.decoding.ngram import END, UNKNOWN, LanguageModelError
from asr.files import write_whole

END_ID, UNKNOWN_ID = 0, 1  # a sentence begins with the end of the one before
_INT8_MOST = 127
_BLOCK_WORDS = 256  # whose logits are in memory at once


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

    def log_probs(self, sentence: Sequence[int]) -> np.ndarray:
        """ln P(word | words before) of every word of a sentence, ids without `</s>`, and of its end.

        Returns:
          float32 [words + 1].
        """
        words = np.array([*sentence, END_ID])
        hidden = cell = np.zeros(self.embedding.shape[1], np.float32)
        states = np.empty((len(words), len(hidden)), np.float32)
        for place, word in enumerate([END_ID, *sentence]):
            sums = self.embedding[word] @ self.kernel + hidden @ self.recurrent_kernel + self.bias
            input_gate, forget_gate, candidate, output_gate = np.split(sums, 4)
            cell = expit(forget_gate) * cell + expit(input_gate) * np.tanh(candidate)
            states[place] = hidden = expit(output_gate) * np.tanh(cell)
        found = np.empty(len(words), np.float32)
        for first in range(0, len(words), _BLOCK_WORDS):
            block = slice(first, first + _BLOCK_WORDS)
            log_probs = log_softmax(states[block] @ self.embedding.T + self.word_bias, axis=1)
            found[block] = np.take_along_axis(log_probs, words[block, np.newaxis], axis=1)[:, 0]
        return found
