"""Reading and writing JSON objects in files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import Aimv2Error, ConfigError
from .text_files import read_text

MAX_JSON = 64 * 2**20  # bytes
MAX_DIGITS = 40  # of a number; transformers writes 10^30 for an unknown length
MAX_DEPTH = 64  # of nested objects and lists


def read_json(path: Path, error: type[Aimv2Error] = ConfigError) -> dict[str, Any]:
    """The JSON object in a file, with a byte order mark or without.

    Raises:
        Aimv2Error: of the type ``error``; the file is unreadable, too large, not JSON, or not an object.
    """
    text = read_text(path, error, MAX_JSON)
    try:
        data = json.loads(text, parse_int=whole_number)
    except (ValueError, RecursionError) as problem:
        raise error(f"{path} is not valid JSON: {problem}") from problem
    if not isinstance(data, dict):
        raise error(f"{path} must hold a JSON object, not {type(data).__name__}")
    level: list[Any] = [data]
    for _ in range(MAX_DEPTH):  # functions that call themselves cannot walk through deeper data
        nested = [value.values() if isinstance(value, dict) else value for value in level]
        level = [value for values in nested for value in values if isinstance(value, (dict, list))]
    if level:
        raise error(f"{path} holds objects and lists more than {MAX_DEPTH} deep: it is no configuration")
    return data


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write an object, indented."""
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def whole_number(text: str) -> int:
    """A whole number of JSON; raise ValueError for too many digits, as Python would need minutes for millions."""
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)
