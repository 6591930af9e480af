"""Hark: speech recognition in Keras that people can run, train and trust.

>>> from asr import Recognizer
>>> print(Recognizer.load("english").transcribe("meeting.m4a").text)
"""

import importlib
import os

# Telemetry of our dependencies is switched off before they can be imported: every module of asr and training
# imports this one first.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime from 1.29 on: a device id, and events to its maker
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio: events, and a look for newer versions
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # huggingface_hub, which Gradio imports
os.environ["FASTAPI_OTEL_AUTO_CONFIGURE"] = "false"  # FastAPI: traces, to where the environment says
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray: versions, hardware, libraries, once an hour
# TensorFlow, where it is loaded, describes the processor in its log; warnings and errors are still logged.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")

__version__ = "0.1.0"
__all__ = ["Recognizer", "Segment", "Transcript", "Word"]

DECODERS = ("greedy", "beam", "joint")
CHANNELS = ("left", "right", "each")

_HOMES = {
    "Recognizer": "recognizer",
    "Segment": "transcript",
    "Transcript": "transcript",
    "Word": "transcript",
}


def __getattr__(name: str):
    """Imports a public name when it is first asked for, so that `import asr.text` loads nothing else."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"asr.{_HOMES[name]}"), name)
