"""Arrays of different lengths in one file on disk: decoded audio, or the outputs of frozen encoders."""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np


class RaggedCache:
    """A folder that holds arrays of different first dimensions one behind another, mapped into memory.

    `cache[i]` is a read-only view of array i; `lengths` are their first dimensions.
    """

    def __init__(self, folder: Path):
        index = json.loads((folder / "index.json").read_text())
        self.key = index["key"]
        self.offsets = np.load(folder / "offsets.npy")
        self.lengths = np.diff(self.offsets)
        shape = (int(self.offsets[-1]), *index["shape"])
        if shape[0]:
            self.data = np.memmap(folder / "data.bin", dtype=index["dtype"], mode="r", shape=shape)
        else:  # an empty file cannot be mapped
            self.data = np.zeros(shape, index["dtype"])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.data[self.offsets[i] : self.offsets[i + 1]]

    @classmethod
    def create(cls, folder: Path, content, arrays: Iterable[np.ndarray]) -> "RaggedCache":
        """Opens what `folder` holds, or writes the arrays there first.

        Args:
          content: says what the arrays are, in anything that JSON can write. A folder with arrays of another
            content is replaced.
          arrays: read only if they have to be written. The folder appears when all are written.
        """
        key, index = fingerprint(content), folder / "index.json"
        if index.exists() and json.loads(index.read_text())["key"] == key:
            return cls(folder)
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        offsets, array = [0], np.zeros(0, "float32")
        with open(partial / "data.bin", "wb") as file:
            for array in arrays:
                file.write(np.ascontiguousarray(array))
                offsets.append(offsets[-1] + len(array))
        np.save(partial / "offsets.npy", np.array(offsets, dtype="int64"))
        description = {"key": key, "dtype": array.dtype.str, "shape": list(array.shape[1:])}
        (partial / "index.json").write_text(json.dumps(description))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        return cls(folder)


def fingerprint(content) -> str:
    """Short name of anything that JSON can write."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
