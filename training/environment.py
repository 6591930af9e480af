"""What a run or a measurement was made with: command, commit, versions, hardware."""

import os
import platform
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
    return {
        "command": shlex.join(command),
        "commit": _commit(),
        "versions": ", ".join([f"Python {platform.python_version()}", *_versions()]),
        "hardware": f"{_processor()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB; {platform.system()}",
    }


def _versions() -> list[str]:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """The checkout's commit, and whether tracked files differ from it."""

    def git(*words: str) -> str:
        root = Path(__file__).parents[1]
        return subprocess.run(
            ["git", "-C", root, *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return f"{commit} with changes" if git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
