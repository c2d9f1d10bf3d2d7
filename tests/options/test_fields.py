"""Option fields and their checks."""

import math
from dataclasses import dataclass, fields

import pytest

from mlx_aimv2.errors import InputError
from mlx_aimv2.options.fields import (
    at_least,
    between,
    check_fields,
    choices_of,
    fraction,
    like,
    more_than,
    one_of,
    option,
    options_from,
)


@dataclass(frozen=True)
class Options:
    count: int = option(3, "How many.", None, at_least(1))
    rate: float | None = option(None, "How fast.", None, more_than(0))
    warmth: float = option(0.5, "How warm.", "Panel", between(0, 1))
    share: float = option(0.2, "How much.", None, fraction())
    decay: float = option(1.0, "How fast it falls.", None, fraction(zero=False, whole=True))
    colour: str = option("red", "Which colour.", None, one_of(["red", "blue"]))

    def __post_init__(self):
        check_fields(self)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "--count must be at least 1, not 0"),
        ({"count": math.nan}, "--count must be at least 1, not nan"),
        ({"rate": 0.0}, "--rate must be more than 0, not 0.0"),
        ({"rate": math.inf}, "--rate must be a finite number, not inf"),
        ({"warmth": 1.5}, "--warmth must be between 0 and 1, not 1.5"),
        ({"share": 1}, "--share must be at least 0 and less than 1, not 1"),
        ({"decay": 0}, "--decay must be more than 0 and at most 1, not 0"),
        ({"colour": "green"}, "--colour 'green' is not one of red, blue"),
    ],
)
def test_refusals_name_option_rule_and_value(values, message):
    with pytest.raises(InputError) as refusal:
        Options(**values)
    assert str(refusal.value) == message


def test_limits_are_valid():
    Options(count=1, rate=1e-9, warmth=1, share=0, decay=1, colour="blue")


def test_choices():
    assert {field.name: choices_of(field) for field in fields(Options) if choices_of(field)} == {
        "colour": ("red", "blue")
    }


@dataclass(frozen=True)
class Others:
    colour: str = like(Options, "colour", "blue", panel="Looks", metavar="NAME")
    warmth: float = like(Options, "warmth")
    options: Options = option(Options, "All of them.")


def test_a_field_like_another():
    colour, warmth, _ = fields(Others)
    assert (colour.default, warmth.default) == ("blue", 0.5)
    assert (colour.metadata["panel"], warmth.metadata["panel"]) == ("Looks", "Panel")
    assert colour.metadata["help"] == "Which colour." and choices_of(colour) == ("red", "blue")
    assert (colour.metadata["command_line"], warmth.metadata["command_line"]) == ({"metavar": "NAME"}, {})
    assert Others().options == Options()


def test_values_of_fields_with_the_same_name():
    assert options_from(Options, Others(warmth=0.1), count=5) == Options(count=5, warmth=0.1, colour="blue")
    assert options_from(Options, Others(), Options(rate=2.0)) == Options(rate=2.0)
