"""Fields of options dataclasses: default, help text, panel, and checks of the value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import InputError

REQUIRED: Any = dataclasses.MISSING  # as a default: the option must be given
KEPT: Any = object()  # the default of the other field
Options = TypeVar("Options")


@dataclass(frozen=True)
class Check:
    """A rule for the value of an option.

    Attributes:
        rule: completes "must be …", such as "at least 1".
        holds: whether a value follows the rule; numbers only, unless there are ``choices``.
        choices: every valid value, where these can be listed.
    """

    rule: str
    holds: Callable[[Any], bool]
    choices: tuple[str, ...] = ()


def at_least(low: float) -> Check:
    """A finite number, ``low`` or more."""
    return Check(f"at least {low:g}", lambda x: low <= x < math.inf)


def more_than(low: float) -> Check:
    """A finite number above ``low``."""
    return Check(f"more than {low:g}", lambda x: low < x < math.inf)


def between(low: float, high: float) -> Check:
    """A number from ``low`` to ``high``, both included."""
    return Check(f"between {low} and {high}", lambda x: low <= x <= high)


def fraction(*, zero: bool = True, whole: bool = False) -> Check:
    """A number from 0 to 1; ``zero`` and ``whole`` say whether 0 and 1 themselves are valid."""
    rule = f"{'at least' if zero else 'more than'} 0 and {'at most' if whole else 'less than'} 1"
    return Check(rule, lambda x: (zero or x > 0) and 0 <= x <= 1 and (whole or x < 1))


def one_of(names: Iterable[str]) -> Check:
    """One of ``names``."""
    choices = tuple(names)
    return Check(f"one of {', '.join(choices)}", choices.__contains__, choices)


def option(default: Any, help: str, panel: str | None = None, *checks: Check, **command_line: Any) -> Any:
    """A dataclass field that the command line shows as an option.

    Args:
        default: the value if the option is not given; None if it depends on other things. A class makes the value.
        help: what `--help` says of it.
        panel: the section of the help that lists it; None for the first one.
        checks: rules that `check_fields` applies to every value but None.
        command_line: passed on to `typer.Option`, such as ``metavar`` or ``envvar``; ``flags`` are its names, if
            these are not made of the field's name.
    """
    metadata = {"help": help, "panel": panel, "checks": checks, "command_line": command_line}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def like(options: Any, name: str, default: Any = KEPT, **command_line: Any) -> Any:
    """A field with the option of another dataclass.

    Args:
        options: the other dataclass.
        name: the name of the field there.
        default: a default of its own; without it that of the other field.
        command_line: what differs on the command line; see `option`. ``panel`` is another section.
    """
    field = next(field for field in dataclasses.fields(options) if field.name == name)
    panel = command_line.pop("panel", field.metadata["panel"])
    command_line = {**field.metadata["command_line"], **command_line}
    metadata = {**field.metadata, "panel": panel, "command_line": command_line}
    return dataclasses.field(default=field.default if default is KEPT else default, metadata=metadata)


def options_from(target: type[Options], *sources: Any, **others: Any) -> Options:
    """``target`` with what ``sources`` have under the names of its fields; later ones win, ``others`` over all."""
    names = [field.name for field in dataclasses.fields(target)]  # type: ignore[arg-type]
    values = {name: getattr(source, name) for source in sources for name in names if hasattr(source, name)}
    return target(**{**values, **others})


def flag(name: str) -> str:
    """The name of an option on the command line."""
    return f"--{name.replace('_', '-')}"


def check_fields(options: Any) -> None:
    """Apply the checks of every field of an options dataclass.

    Raises:
        InputError: with the name of the option, the rule, and the value.
    """
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        for check in field.metadata.get("checks", ()):
            if value is None or check.holds(value):
                continue
            if check.choices:
                raise InputError(f"{flag(field.name)} {value!r} is not {check.rule}")
            rule = "a finite number" if isinstance(value, float) and math.isinf(value) else check.rule
            raise InputError(f"{flag(field.name)} must be {rule}, not {value}")


def choices_of(field: dataclasses.Field[Any]) -> tuple[str, ...]:
    """Every valid value of a field, where its checks list them."""
    return next((check.choices for check in field.metadata["checks"] if check.choices), ())
