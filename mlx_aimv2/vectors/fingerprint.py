"""Fingerprint of vectors: checkpoint, dtype, pooling and preprocessing; which vectors may be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..checkpoints.identity import Origin
from ..errors import InputError

Fingerprint = Mapping[str, Any]
NOUNS = {"name": "model", "normalized": "unit length"}  # of the keys, in messages
INDIFFERENT = ("name", "revision", "layout")  # where the checkpoint is from; its hash makes this irrelevant
WORDS = {None: "none", True: "yes", False: "no"}


def fingerprint_of(
    origin: Origin | None, pooling: str, normalized: bool, preprocessing: Mapping[str, Any]
) -> dict[str, Any]:
    """The fingerprint of vectors, as plain values.

    Args:
        origin: of the model; None for a model that was not loaded from a checkpoint.
        pooling: the name of the pooling.
        normalized: whether the vectors have unit length.
        preprocessing: the settings of the image processor, of which the fingerprint has a hash.
    """
    digest = hashlib.sha256(json.dumps(preprocessing, sort_keys=True, default=str).encode()).hexdigest()[:16]
    model = asdict(origin) if origin is not None else {"name": "unnamed", "checkpoint": None}
    for name in ("adapter", "image_size"):  # absent in files of older versions
        if model.get(name) is None:
            model.pop(name, None)
    return {**model, "pooling": pooling, "normalized": normalized, "preprocessing": digest}


def check_same(path: Path, stored: Fingerprint, fingerprint: Fingerprint) -> None:
    """Raise InputError with the differences if the vectors in ``path`` must not be compared with new ones."""
    if _compared(stored) != _compared(fingerprint):
        raise InputError(
            f"{path} holds vectors of another kind ({differences(stored, fingerprint)}): they cannot be mixed;"
            " name a new folder, or replace it with --force"
        )


def _compared(fingerprint: Fingerprint) -> dict[str, Any]:
    plain = json.loads(json.dumps(fingerprint))
    return {key: value for key, value in plain.items() if key not in INDIFFERENT}


def differences(stored: Fingerprint, fingerprint: Fingerprint) -> str:
    """The differences between two fingerprints, for a message."""
    keys = [key for key in {**stored, **fingerprint} if stored.get(key) != fingerprint.get(key)]
    if "checkpoint" in keys and "name" in keys:  # the name says more than the hash
        keys = ["name", *(key for key in keys if key not in (*INDIFFERENT, "checkpoint"))]
    else:
        keys = [key for key in keys if key not in INDIFFERENT]
    pairs = ((NOUNS.get(key, key), stored.get(key), fingerprint.get(key)) for key in keys)
    return "; ".join(f"{noun}: {_plain(before)}, now {_plain(after)}" for noun, before, after in pairs)


def _plain(value: object) -> str:
    return WORDS[value] if value is None or isinstance(value, bool) else str(value)
