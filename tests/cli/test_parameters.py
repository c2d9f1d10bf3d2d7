"""Options dataclasses as parameters of a verb."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from mlx_aimv2.cli.guard import verb
from mlx_aimv2.cli.parameters import FieldsOf, expand
from mlx_aimv2.options.fields import at_least, check_fields, one_of, option


@dataclass(frozen=True)
class Colours:
    colour: str = option("red", "The colour.", "Looks", one_of(("red", "blue")))
    mode: Literal["a", "b"] = option("a", "The mode.")
    names: tuple[str, ...] = option((), "Names.", flags=("--names", "-n"))
    folder: Path | None = option(None, "A folder.")
    count: int = option(3, "How many.", None, at_least(1))
    bright: bool = option(False, "Bright.")
    smooth: bool = option(True, "Smooth.")
    managed: bool | None = option(None, "Managed. [default: it depends]")

    def __post_init__(self) -> None:
        check_fields(self)


def paint(
    *,
    images: Annotated[list[str], typer.Argument(help="Images.")],
    colours: Colours,
    quick: Annotated[bool, typer.Option("--quick", help="Quick.")] = False,
) -> None:
    """Paint images."""
    typer.echo(repr((images, colours, quick)))


def configure(*, given: Annotated[dict[str, Any], FieldsOf(Colours, flags={"colour": "-c"})]) -> None:
    """Configure."""
    typer.echo(repr(given))


def run(function, *arguments):
    app = typer.Typer(rich_markup_mode=None)
    app.command()(verb(function))
    return CliRunner().invoke(app, list(arguments))


def test_a_dataclass_is_handed_back_whole():
    assert run(paint, "a.png").stdout == repr((["a.png"], Colours(), False)) + "\n"
    words = ["a.png", "--colour", "blue", "-n", "x", "-n", "y", "--folder", "f", "--count", "5", "--bright"]
    done = run(paint, *words, "--no-smooth", "--no-managed", "--quick")
    colours = Colours("blue", "a", ("x", "y"), Path("f"), 5, True, False, False)
    assert done.stdout == repr((["a.png"], colours, True)) + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--colour", "green"], "--colour 'green' is not one of red, blue"),
        (["--count", "0"], "--count must be at least 1, not 0"),
    ],
)
def test_its_refusals_are_wrong_usage(arguments, message):
    done = run(paint, "a.png", *arguments)
    assert (done.exit_code, done.stderr) == (2, f"mlx-aimv2: error: {message}\n")


def test_fields_that_were_given():
    assert run(configure).stdout == "{}\n"
    done = run(configure, "-c", "blue", "--no-bright", "--names", "x")
    assert done.stdout == repr({"colour": "blue", "names": ["x"], "bright": False}) + "\n"


def test_help_has_defaults_and_panels():
    parameters = expand(paint).signature.parameters
    declared = {name: parameter.annotation.__metadata__[0] for name, parameter in parameters.items()}
    assert declared["colour"].help == "The colour. [default: red]"
    assert declared["colour"].rich_help_panel == "Looks"
    assert declared["bright"].help == "Bright."
    assert declared["smooth"].help == "Smooth. [default: true]"
    assert declared["managed"].help == "Managed. [default: it depends]"
    assert declared["colour"].autocompletion("b") == ["blue"]
    assert expand(paint).options == {*Colours.__dataclass_fields__, "quick"}
