"""Fingerprint of a checkpoint: a hash over each tensor's name, dtype, shape and first bytes; and a model's origin."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from .headers import Header
from .lazy_copy import DataReader

SAMPLE_BYTES = 4096  # from the start of each tensor: tells any two trainings apart, and is quick for 10 GB


@dataclass(frozen=True)
class Origin:
    """The source of a model.

    Attributes:
        name: the repository, `demo`, or the folder's path.
        revision: the commit of a repository; None for a folder.
        checkpoint: `checkpoint_hash` of the files.
        layout: the name of the layout.
        dtype: of the computation.
        quantization: such as `4-bit affine, groups of 64`; None for plain weights.
        adapter: a hash of the adapter; None without one.
        image_size: pixels on a side, if the position table was resampled for them; None if it was not.
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

    It does not depend on the files that hold the tensors. Two checkpoints that differ only deep inside
    their tensors get the same hash; two trainings of one model do not.

    Raises:
        DamagedFileError: a file cannot be read.
    """
    digest = hashlib.sha256()
    with DataReader() as reader:
        for name in sorted(header.tensors):
            info = header.tensors[name]
            digest.update(f"{name} {info.dtype} {info.shape}\n".encode())
            for piece in reader.pieces(info, SAMPLE_BYTES):
                digest.update(piece)
    return digest.hexdigest()[:16]
