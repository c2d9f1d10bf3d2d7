"""The command `mlx-aimv2`: its verbs, and what holds for all of them."""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import Annotated

import typer

from .. import __version__
from . import classify, convert, embed, info, models
from .ui import DEBUG_VARIABLE, NAME, show_warning

app = typer.Typer(
    name=NAME,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="See with Apple's AIMv2: embed and classify pictures, look into and convert checkpoints.",
    epilog="Exit status: 0 all done, 1 something could not be done (named on stderr), 2 wrong usage.",
)
app.command("embed")(embed.embed)
app.command("classify")(classify.classify)
app.command("models")(models.models)
app.command("info")(info.info)
app.command("convert")(convert.convert)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{NAME} {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    """Options of every verb; `main` has taken `--debug` out already, and it stands here for the help."""


def main() -> None:
    """Run the command line."""
    arguments = sys.argv[1:]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    if "--debug" in arguments[:end]:
        os.environ[DEBUG_VARIABLE] = "1"
        arguments.remove("--debug")
    warnings.showwarning = show_warning
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):  # file names need not be valid text
            stream.reconfigure(errors=errors)
    app(args=arguments, prog_name=NAME)
