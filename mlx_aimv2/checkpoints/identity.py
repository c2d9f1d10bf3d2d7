"""The identity of a checkpoint, which every vector made with it carries."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from .headers import Header
from .lazy_copy import DataReader

SAMPLE_BYTES = 4096  # of each tensor, from its start: enough to tell any two trainings apart, quick for 10 GB


@dataclass(frozen=True)
class Origin:
    """Where a model came from.

    Attributes:
        name: the repository, `demo`, or the folder's path.
        revision: the commit, for a repository.
        checkpoint: `checkpoint_hash` of the files.
        layout: the name of the layout found.
        dtype: what the weights are computed in.
        quantization: in words, for quantized weights; None for others.
        adapter: a hash of the adapter in it; None without one.
        image_size: pixels on a side that its position table was resampled for; None where that is as stored.
    """

    name: str
    revision: str | None
    checkpoint: str
    layout: str
    dtype: str
    quantization: str | None = None
    adapter: str | None = None
    image_size: int | None = None


def checkpoint_hash(header: Header) -> str:
    """A SHA-256 over every tensor's name, dtype, shape and first bytes, in 16 hexadecimal digits.

    It does not depend on how the tensors are spread over files. Two checkpoints that differ only deep inside
    their tensors get the same hash; two trainings of one model do not.

    Raises:
        DamagedFileError: a file cannot be read.
    """
    digest = hashlib.sha256()
    with DataReader() as reader:
        for name in sorted(header.tensors):
            info = header.tensors[name]
            digest.update(f"{name} {info.dtype} {info.shape}\n".encode())
            digest.update(reader.first(info, SAMPLE_BYTES))
    return digest.hexdigest()[:16]
