"""Hark: speech recognition in Keras that people can run, train and trust."""

from asr.recognizer import Recognizer
from asr.transcript import Segment, Transcript, Word

__all__ = ["Recognizer", "Segment", "Transcript", "Word"]
__version__ = "0.1.0"
