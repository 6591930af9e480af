"""What a run or a measurement was made with: command, commit, versions, hardware."""

import contextlib
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    *("keras", "tensorflow", "tensorflow-cpu", "jax", "numpy", "onnxruntime", "librosa", "soxr"),
    *("jiwer", "rapidfuzz", "whisper-normalizer"),
)


def environment(command: Sequence[str]) -> dict[str, str]:
    """Names and values that are the same whenever the command is repeated in the same place."""
    versions = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "command": shlex.join(command),
        "commit": _commit(),
        "versions": ", ".join(versions),
        "hardware": f"{_processor()}, {_cores()}, {gib:.0f} GiB; {platform.system()}",
    }


def _commit() -> str:
    """The checkout's commit, and whether tracked files differ from it."""

    def git(*words: str) -> str:
        command = ["git", "-C", Path(__file__).parents[1], *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return f"{commit} with changes" if git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cores() -> str:
    """Those that this process may use; a measurement that is pinned to one must not claim all."""
    cores = os.cpu_count()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    return f"{cores} cores" if usable == cores else f"{usable} of {cores} cores"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*:\s*(.*\S)", path.read_text() if path.exists() else "", re.MULTILINE)
    return name[1] if name else platform.processor() or platform.machine()
