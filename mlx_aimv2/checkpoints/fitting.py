"""Holding the tensors of a file against those a model expects: strictly, and all of the difference at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import mlx.core as mx

from ..errors import MismatchError


def check_fit(
    expected: Mapping[str, mx.array],
    tensors: Mapping[str, mx.array],
    unknown: Sequence[str],
    source: str,
    what: str = "its configuration",
) -> None:
    """Hold the tensors of a file against the model's.

    Args:
        expected: what the model has, by name; only shapes and types are looked at.
        tensors: what the file has.
        unknown: names of tensors that have no place anywhere.
        source: what to call the file in the message.
        what: what it does not fit, in the message.

    Raises:
        MismatchError: the whole difference in one message.
    """
    missing = [name for name in expected if name not in tensors]
    unexpected = sorted([*(name for name in tensors if name not in expected), *unknown])
    wrong = [
        f"{name} is {list(tensors[name].shape)}, not {list(expected[name].shape)}"
        for name in expected
        if name in tensors and tensors[name].shape != expected[name].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of the wrong shape": wrong}
    kinds["of the wrong type"] = [
        f"{name} is {str(tensors[name].dtype).removeprefix('mlx.core.')}"
        for name in expected
        if name in tensors and _is_float(tensors[name]) != _is_float(expected[name])
    ]
    parts = [f"{len(names)} {kind}: {_fold(names)}" for kind, names in kinds.items() if names]
    if parts:
        raise MismatchError(f"{source} does not fit {what}: {'; '.join(parts)}")


def _is_float(x: mx.array) -> bool:
    return bool(mx.issubdtype(x.dtype, mx.floating))


def _fold(names: list[str]) -> str:
    """Names that differ only in a layer's number as one, such as `encoder.layers.{0-23}.rms_norm1.weight`."""
    groups: dict[str, list[int]] = {}
    for name in names:
        template = re.sub(r"\.(\d+)\.", ".{}.", name, count=1)
        number = re.search(r"\.(\d+)\.", name)
        groups.setdefault(template, []).append(int(number[1]) if number else -1)
    return ", ".join(
        template.replace("{}", _span(sorted(numbers)), 1) for template, numbers in groups.items()
    )


def _span(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{{{numbers[0]}-{numbers[-1]}}}"
    return f"{{{','.join(map(str, numbers))}}}"
