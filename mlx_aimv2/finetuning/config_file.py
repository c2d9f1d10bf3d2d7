"""YAML files of fine-tuning options."""

from __future__ import annotations

import difflib
import typing
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..options.fields import flag
from ..storage.text_files import read_text
from .options import FinetuneOptions

MAX_CONFIG = 2**20  # bytes of a YAML file


def read_config(path: str | Path) -> dict[str, Any]:
    """The options in a YAML file, as YAML reads them.

    Raises:
        InputError: the file cannot be read, is not a YAML mapping, or holds an option twice or one that
            does not exist.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise InputError.reading(path, error) from error
    if size > MAX_CONFIG:
        raise InputError(f"{path} is too large for a configuration")
    text = read_text(path)
    try:
        data, node = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, Mapping):
        raise InputError(f"{path} must hold options, such as `learning_rate: 1e-5`, one in a line")
    names = [str(key.value).replace("-", "_") for key, _ in node.value]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"{path} holds {twice[0]} twice: leave one of them out")
    known = {*typing.get_type_hints(FinetuneOptions), "device"}
    if unknown := [name for name in names if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, 1)
        advice = f"did you mean {near[0]}?" if near else "see `mlx-aimv2 finetune --help`"
        raise InputError(f"{path}: there is no option {unknown[0]!r}: {advice}")
    return {str(key).replace("-", "_"): value for key, value in data.items()}


def make_options(values: Mapping[str, Any]) -> FinetuneOptions:
    """`FinetuneOptions` of values from a YAML file and the command line.

    Raises:
        InputError: an option does not exist, or its value has another type.
    """
    kinds = typing.get_type_hints(FinetuneOptions)
    if unknown := sorted(set(values) - set(kinds)):
        raise InputError(f"there is no option {unknown[0]!r}: see `mlx-aimv2 finetune --help`")
    return FinetuneOptions(**{name: _typed(name, value, kinds[name]) for name, value in values.items()})


def _typed(name: str, value: Any, kind: Any) -> Any:
    """``value`` as the type of its field; YAML reads `1e-5` as a text."""
    if kind == tuple[str, ...]:
        return tuple(_typed(name, item, str) for item in ([value] if isinstance(value, str) else value))
    kinds = typing.get_args(kind) or (kind,)
    if value is None and type(None) in kinds:
        return None
    wanted = next(kind for kind in kinds if kind is not type(None))
    try:
        if isinstance(value, bool):
            if wanted is bool:
                return value
        elif wanted is int and float(value) == int(float(value)):
            return int(float(value))
        elif wanted is float:
            return float(value)
        elif wanted is str and isinstance(value, str | int | float):
            return str(value)
        elif wanted is str and isinstance(value, list):
            return ",".join(map(str, value))
    except (TypeError, ValueError, OverflowError):
        pass
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    raise InputError(f"{flag(name)} must be {names[wanted]}, not {value!r}")
