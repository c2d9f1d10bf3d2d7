"""Parameters of a verb for typer, made of the fields of options dataclasses."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ..options.fields import REQUIRED, choices_of, flag
from .completion import Complete, choices


@dataclass(frozen=True)
class FieldsOf:
    """Marks a parameter `Annotated[dict[str, Any], FieldsOf(SomeOptions)]`: the fields that were given, by name.

    A parameter with a dataclass as its type gets a whole one instead.

    Attributes:
        options: a dataclass.
        flags: a second name for some of its fields.
        completions: shell completion for some of its fields.
    """

    options: type
    flags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    completions: Mapping[str, Complete] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Expansion:
    """The parameters of a verb with options dataclasses replaced by their fields.

    Attributes:
        signature: what typer reads.
        groups: the parameters that were replaced.
    """

    signature: inspect.Signature
    groups: Mapping[str, type | FieldsOf]

    @property
    def options(self) -> frozenset[str]:
        """The names of all options; arguments are not among them."""
        return frozenset(
            name
            for name, parameter in self.signature.parameters.items()
            if isinstance(_declaration(parameter.annotation), typer.models.OptionInfo)
        )

    def collected(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values that typer passes, as the arguments of the verb.

        Raises:
            InputError: a dataclass refuses its values.
        """
        arguments = dict(values)
        for name, group in self.groups.items():
            options = group.options if isinstance(group, FieldsOf) else group
            names = [field.name for field in dataclasses.fields(options) if field.name in arguments]
            fields = {field: arguments.pop(field) for field in names}
            if isinstance(group, FieldsOf):
                arguments[name] = {key: value for key, value in fields.items() if value not in (None, [])}
            else:
                tuples = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
                arguments[name] = group(**fields | tuples)
        return arguments


def expand(function: Callable[..., object]) -> Expansion:
    """Replace the options dataclasses among the parameters of a verb."""
    hints = typing.get_type_hints(function, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type | FieldsOf] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        if isinstance(marker := _declaration(hint), FieldsOf):
            groups[name] = marker
            parameters += _parameters(marker.options, marker)
        elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
            groups[name] = hint
            parameters += _parameters(hint)
        else:
            parameters.append(parameter.replace(annotation=hint, kind=parameter.KEYWORD_ONLY))
    return Expansion(inspect.Signature(parameters), groups)


def _declaration(hint: Any) -> object:
    """What an annotation `Annotated[type, declaration]` says besides the type."""
    return getattr(hint, "__metadata__", (None,))[0]


def _parameters(options: type, marker: FieldsOf | None = None) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(options)
    return [_parameter(field, hints[field.name], marker) for field in dataclasses.fields(options)]


def _parameter(field: dataclasses.Field[Any], hint: Any, marker: FieldsOf | None) -> inspect.Parameter:
    kind, optional = _kind(hint)
    if marker:
        kind, optional = kind | None, True
    name = flag(field.name)
    has_negative = kind in (bool, bool | None) and (optional or field.default)
    if has_negative:
        name += f"/--no-{name[2:]}"
    declared = dict(field.metadata["command_line"])
    short = (marker.flags[field.name],) if marker and field.name in marker.flags else ()
    flags = declared.pop("flags", (name, *short))
    if valid := choices_of(field):
        declared.setdefault("autocompletion", choices(valid))
    elif marker and field.name in marker.completions:
        declared["autocompletion"] = marker.completions[field.name]
    help, default = field.metadata["help"], field.default
    is_shown = has_negative if isinstance(default, bool) else default not in (REQUIRED, None, "", ())
    if is_shown and "[default" not in help:
        help += f" [default: {str(default).lower() if isinstance(default, bool) else default}]"
    option = typer.Option(
        *flags, help=help, rich_help_panel=field.metadata["panel"], show_default=False, **declared
    )
    if marker or default is REQUIRED:
        default = None if marker else inspect.Parameter.empty
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=list(default) if isinstance(default, tuple) else default,
        annotation=Annotated[kind, option],
    )


def _kind(hint: Any) -> tuple[Any, bool]:
    """The type of a value as typer knows it, and whether it may be None."""
    if hint == tuple[str, ...]:
        return list[str], False
    if typing.get_origin(hint) is typing.Literal:
        return str, False
    return hint, isinstance(hint, types.UnionType) and type(None) in typing.get_args(hint)
