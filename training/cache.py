"""Arrays of different lengths in one file on disk: decoded audio, or the outputs of frozen encoders."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np


class Ragged:
    """A folder that holds arrays of different first dimensions one behind another, mapped into memory.

    `ragged[i]` is a read-only view of array i. `key` says what the arrays are, so that a cache of something
    else is not taken for this one.
    """

    def __init__(self, folder: Path):
        index = json.loads((folder / "index.json").read_text())
        self.key = index["key"]
        self.offsets = np.load(folder / "offsets.npy")
        shape = (int(self.offsets[-1]), *index["shape"])
        if shape[0]:
            self.data = np.memmap(folder / "data.bin", dtype=index["dtype"], mode="r", shape=shape)
        else:  # an empty file cannot be mapped
            self.data = np.zeros(shape, index["dtype"])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.data[self.offsets[i] : self.offsets[i + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """First dimension of every array."""
        return np.diff(self.offsets)

    @classmethod
    def create(cls, folder: Path, key: str, arrays: Iterable[np.ndarray]) -> "Ragged":
        """Opens what `folder` holds under `key`; writes the arrays there first where it does not.

        A write that was cut short is started again: the index comes last.
        """
        index = folder / "index.json"
        if index.exists() and json.loads(index.read_text())["key"] == key:
            return cls(folder)
        folder.mkdir(parents=True, exist_ok=True)
        index.unlink(missing_ok=True)
        offsets, array = [0], np.zeros(0, "float32")
        with open(folder / "data.bin", "wb") as file:
            for array in arrays:
                file.write(np.ascontiguousarray(array))
                offsets.append(offsets[-1] + len(array))
        np.save(folder / "offsets.npy", np.array(offsets, dtype="int64"))
        index.write_text(json.dumps({"key": key, "dtype": array.dtype.str, "shape": list(array.shape[1:])}))
        return cls(folder)
