"""English text normalisation by its usual name; every model has its own in its `asr.tokenizer.Tokenizer`."""

from asr.tokenizer import normalize

__all__ = ["normalize"]
