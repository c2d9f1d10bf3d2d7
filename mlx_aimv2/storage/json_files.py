"""Reading and writing JSON objects in files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import Aimv2Error, ConfigError
from .encodings import decode_text
from .stand_ins import LOOK, stand_in

MAX_JSON = 64 * 2**20  # bytes
MAX_DIGITS = 40  # of a number; transformers writes 10^30 where no length is known
MAX_DEPTH = 64  # of objects and lists in one another


def read_json(path: Path, error: type[Aimv2Error] = ConfigError) -> dict[str, Any]:
    """The JSON object in a file, with a byte order mark or without.

    Raises:
        Aimv2Error: of the type ``error``; the file is unreadable, too large, not JSON, or holds no object.
    """
    text = read_small_text(path, error)
    try:
        data = json.loads(text, parse_int=whole_number)
    except (ValueError, RecursionError) as problem:
        raise error(f"{path} is not valid JSON: {problem}") from problem
    if not isinstance(data, dict):
        raise error(f"{path} must hold a JSON object, not {type(data).__name__}")
    if _depth(data) > MAX_DEPTH:
        raise error(f"{path} holds objects and lists more than {MAX_DEPTH} deep: it is no configuration")
    return data


def read_small_text(path: Path, error: type[Aimv2Error] = ConfigError) -> str:
    """The text of a small file of a checkpoint, without its byte order mark.

    Raises:
        Aimv2Error: of the type ``error``; the file is unreadable, too large, not text, or stands in for another.
    """
    if path.exists() and not path.is_file():
        raise error(f"{path} is not a regular file")
    try:
        if (size := path.stat().st_size) > MAX_JSON:
            raise error(f"{path}: {size} bytes is too large for a configuration")
        data = path.read_bytes()
    except OSError as problem:
        raise error.reading(path, problem) from problem
    if (found := stand_in(data[:LOOK])) is not None:
        raise error(f"{path} is {found}")
    try:
        return decode_text(data)
    except UnicodeDecodeError as problem:
        raise error(f"{path} is not text in UTF-8: {problem}") from problem


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write an object, indented."""
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def whole_number(text: str) -> int:
    """A whole number of JSON; Python would need minutes for one of millions of digits.

    Raises:
        ValueError: it has too many digits.
    """
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _depth(data: object) -> int:
    """How deep objects and lists lie in one another, `MAX_DEPTH` + 1 for all that lie deeper.

    Functions that call themselves could not walk through what is much deeper.
    """
    level: list[Any] = [data]
    for depth in range(MAX_DEPTH + 1):
        parts = [one.values() if isinstance(one, dict) else one for one in level]
        level = [value for part in parts for value in part if isinstance(value, (dict, list))]
        if not level:
            return depth + 1
    return MAX_DEPTH + 1
