"""`StoredVectors`: the vectors of a folder of shards in the order of the input, in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import InputError
from .files import Rows
from .fingerprint import Fingerprint, check_same
from .manifest import Entry, in_order, read_manifests
from .shards import SHARD_FORMATS, Shard, map_vectors, read_shard

BLOCK = 1024  # rows that are read together
KEPT = 2  # shards in memory, of a format that cannot be mapped


class StoredVectors:
    """The rows of a folder of shards; the vectors stay on disk.

    Attributes:
        names: of the images or texts, in the order of the input.
        fingerprint: of the vectors.
    """

    def __init__(self, folder: Path) -> None:
        """Read the names, and check that every shard is as it was written.

        Raises:
            InputError: the folder has no vectors, token grids of different sizes, or a damaged shard, which is named.
        """
        manifests = read_manifests(folder)
        named = {file: entry for each in manifests.values() for file, entry in each.shards.items()}
        if not named:
            raise InputError(f"{folder} holds no vectors")
        self._folder, self._files = folder, in_order(set(named))
        self.fingerprint: Fingerprint = next(iter(manifests.values())).fingerprint
        shards = [self._read(file, named[file]) for file in self._files]
        shapes = {shard.shape[1:] for shard in shards if shard.shape[0]}
        if len(shapes) > 1:
            raise InputError(f"{folder} holds token grids of different sizes: read its shards one by one")
        numbers = [np.arange(shard.shape[0]) for shard in shards]
        self._shard = np.repeat(np.arange(len(shards)), [len(each) for each in numbers])
        self._number = np.concatenate(numbers)
        names = [name for shard in shards for name in shard.names]
        order = np.argsort(_positions(shards), kind="stable")
        if len(manifests) > 1:  # several processes may have embedded one image
            order = order[_last_of_each(shards)[order]]
        self._shard, self._number = self._shard[order], self._number[order]
        self.names = [names[row] for row in order]
        self._width = shapes.pop() if shapes else ()

    @property
    def rows(self) -> Rows:
        """The vectors (N, ...), in blocks."""
        return Rows((len(self.names), *self._width), self._blocks)

    def array(self) -> np.ndarray:
        """All vectors (N, ...); mapped into memory where they are one shard in order."""
        if len(self._files) == 1 and np.array_equal(self._number, np.arange(len(self.names))):
            return map_vectors(self._folder / self._files[0])
        result = np.empty((len(self.names), *self._width), np.float32)
        start = 0
        for block in self._blocks():
            result[start : start + len(block)] = block
            start += len(block)
        return result

    def _blocks(self) -> Iterator[np.ndarray]:
        mapped = {
            number: map_vectors(self._folder / file)
            for number, file in enumerate(self._files)
            if SHARD_FORMATS[Path(file).suffix].is_mapped
        }
        load = lru_cache(KEPT)(lambda number: map_vectors(self._folder / self._files[number]))
        for start in range(0, len(self.names), BLOCK):
            shards, numbers = self._shard[start : start + BLOCK], self._number[start : start + BLOCK]
            block = np.empty((len(shards), *self._width), np.float32)
            for shard in np.unique(shards).tolist():
                chosen = shards == shard
                vectors = mapped[shard] if shard in mapped else load(shard)
                block[chosen] = vectors[numbers[chosen]]
            yield block

    def _read(self, file: str, entry: Entry) -> Shard:
        path = self._folder / file
        if not path.is_file():
            raise InputError(
                f"{path} is in the manifest and is gone: the same `embed` command makes it again"
            )
        entry.check_content(path)
        shard, dtype = read_shard(path), map_vectors(path).dtype if path.suffix == ".npz" else np.float32
        check_same(path, shard.fingerprint, self.fingerprint)
        if dtype != np.float32 or len(shard.shape) < 2:
            raise InputError(f"{path} holds {dtype} of shape {shard.shape}, not float32 vectors in rows")
        if not len(shard.names) == shard.shape[0] == entry.rows:
            raise InputError(f"{path} is damaged: it has {shard.shape[0]} vectors instead of {entry.rows}")
        return shard


def _positions(shards: list[Shard]) -> np.ndarray:
    """The positions of all rows; those of shards of an old version are behind the rows before."""
    positions, last = [], -1
    for shard in shards:
        start = last + 1
        own = shard.positions if shard.positions is not None else range(start, start + shard.shape[0])
        positions.append(np.array(own, dtype=np.int64))
        last = max(last, *own) if len(own) else last
    return np.concatenate(positions)


def _last_of_each(shards: list[Shard]) -> np.ndarray:
    """Whether each row is the last one of its image."""
    keys = [
        (shard.marks[number].key if shard.marks is not None else "") or f"\0{name}"
        for shard in shards
        for number, name in enumerate(shard.names)
    ]
    last = {key: row for row, key in enumerate(keys)}
    return np.array([last[key] == row for row, key in enumerate(keys)], dtype=bool)
