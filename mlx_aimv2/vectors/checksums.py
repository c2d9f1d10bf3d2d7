"""Checksums of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

CHUNK = 2**20  # bytes that are read at once


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits; raise OSError if it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
