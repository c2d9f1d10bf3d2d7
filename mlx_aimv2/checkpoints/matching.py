"""Comparison of a checkpoint's tensors with those of its model, and messages about the difference."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import mlx.core as mx

from ..errors import MismatchError

SHOWN = 20  # groups of names, and single layers of a group, in a message


def dtype_name(dtype: mx.Dtype) -> str:
    """Such as `float32`."""
    return str(dtype).removeprefix("mlx.core.")


def check_fit(
    expected: Mapping[str, mx.array],
    tensors: Mapping[str, mx.array],
    unknown: Sequence[str],
    source: str,
    what: str = "its configuration",
) -> None:
    """Raise MismatchError, with the whole difference in one message, if tensors do not fit a model."""
    missing = [name for name in expected if name not in tensors]
    unexpected = sorted([*(name for name in tensors if name not in expected), *unknown])
    wrong = [
        f"{name} is {list(tensors[name].shape)}, not {list(expected[name].shape)}"
        for name in expected
        if name in tensors and tensors[name].shape != expected[name].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of the wrong shape": wrong}
    kinds["of the wrong type"] = [
        f"{name} is {dtype_name(tensors[name].dtype)}"
        for name in expected
        if name in tensors and _is_float(tensors[name]) != _is_float(expected[name])
    ]
    difference = [f"{len(names)} {kind}: {fold_names(names)}" for kind, names in kinds.items() if names]
    if difference:
        raise MismatchError(f"{source} does not fit {what}: {'; '.join(difference)}")


def _is_float(x: mx.array) -> bool:
    return bool(mx.issubdtype(x.dtype, mx.floating))


def fold_names(names: Sequence[str]) -> str:
    """Fold names that differ only in a layer's number, such as `encoder.layers.{0-23}.rms_norm1.weight`."""
    groups: dict[tuple[str, str], set[int]] = {}
    for name in names:
        match = re.search(r"(?<=\.)\d+(?=\.)", name)
        key = (name[: match.start()], name[match.end() :]) if match else (name, "")
        groups.setdefault(key, set()).update([int(match[0])] if match else [])
    folded = [start + _span(sorted(numbers)) + end for (start, end), numbers in groups.items()]
    more = f" … and {len(folded) - SHOWN} more" if len(folded) > SHOWN else ""
    return ", ".join(folded[:SHOWN]) + more


def _span(numbers: list[int]) -> str:
    if len(numbers) < 2:
        return "".join(map(str, numbers))
    if numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{{{numbers[0]}-{numbers[-1]}}}"
    more = ",…" if len(numbers) > SHOWN else ""
    return f"{{{','.join(map(str, numbers[:SHOWN]))}{more}}}"
