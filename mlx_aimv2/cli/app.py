"""The command `mlx-aimv2`: its verbs, running a command line, ending the process."""

from __future__ import annotations

import codecs
import io
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import typer

from .._version import __version__
from ..errors import InputError, OutputError
from . import (
    bench,
    classify,
    compare,
    convert,
    demo,
    embed,
    evaluate,
    export,
    finetune,
    fuse,
    info,
    models,
    upload,
    vectors,
)
from .guard import DEBUG_VARIABLE, RUNNING, leave, report
from .help import GroupHelp, VerbHelp
from .output import NAME, say, show_warning

# of click, or of the copy of click in newer versions of typer
UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])

app = typer.Typer(
    name=NAME,
    cls=GroupHelp,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Embed and classify images with Apple's AIMv2; inspect, convert and fine-tune its checkpoints.",
    epilog="Exit status: 0 all done, 1 something could not be done (stderr says what), 2 wrong usage.",
)
VERBS = (
    embed.embed,
    vectors.vectors,
    classify.classify,
    demo.demo,
    models.models,
    info.info,
    bench.bench,
    convert.convert,
    export.export,
    finetune.finetune,
    fuse.fuse,
    upload.upload,
    evaluate.evaluate,
    compare.compare,
)


class EvaluateVerb(VerbHelp):
    """`evaluate`, which refuses `--compare`: that is a verb of its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words after the verb."""
        if any(word.split("=", 1)[0] == "--compare" for word in args):
            pair = "ORIGINAL CONVERTED"
            if "--compare" in args:
                pair = shlex.join(args[args.index("--compare") + 1 :][:2]) or pair
            raise SystemExit(report(InputError(f"compare is a verb now: mlx-aimv2 compare {pair}")))
        return super().parse_args(ctx, args)


for function in VERBS:
    app.command(function.__name__, cls=EvaluateVerb if function is evaluate.evaluate else VerbHelp)(function)


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
    """Options of the command itself; `_run` reads `--debug`, which is here for `--help`."""


def main() -> None:
    """Run the command line of this process, and end the process."""
    try:
        _run(sys.argv[1:])
    except SystemExit as end:
        # inside `except`: the traceback keeps objects that would wait for their threads when they are deleted
        leave(_status(end))


def run(arguments: Sequence[str]) -> int:
    """Run a command line as `main` does, in a process that goes on.

    Args:
        arguments: the words after the name of the program.

    Returns:
        The exit status.
    """
    try:
        _run(arguments)
    except SystemExit as end:
        return _status(end)


def _run(arguments: Sequence[str]) -> NoReturn:
    """Run a command line; `SystemExit` carries its exit status."""
    arguments = list(arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    RUNNING.debug = "--debug" in arguments[:end] or bool(os.environ.get(DEBUG_VARIABLE))
    if "--debug" in arguments[:end]:
        arguments.remove("--debug")
    former, warnings.showwarning = warnings.showwarning, show_warning
    _prepare_streams()
    try:
        raise SystemExit(app(args=arguments, prog_name=NAME, standalone_mode=False))
    except UsageError as error:
        raise SystemExit(_report_usage(error, arguments)) from error
    except OSError as error:  # help or version could not be written; verbs report their own errors
        raise SystemExit(report(OutputError.writing("stdout", error))) from error
    finally:
        warnings.showwarning = former
        RUNNING.options, RUNNING.debug = frozenset(), False


def _report_usage(error: Any, arguments: list[str]) -> int:
    """Print what is wrong with the arguments in one line; the exit status."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return error.exit_code
    message = error.format_message().rstrip(".")
    files = [argument for argument in arguments if argument.startswith("-") and Path(argument).is_file()]
    hint = f"; write the file {files[0]} as ./{files[0]}" if files else ""
    command = error.ctx.command_path if error.ctx else NAME
    say(f"error: {message}{hint}; see `{command} --help`")
    return error.exit_code


def _status(end: SystemExit) -> int:
    return end.code if isinstance(end.code, int) else int(end.code is not None)


def _prepare_streams() -> None:
    """Let stdout and stderr take any file name, and replace closed ones."""
    nowhere = Path(os.devnull)
    if sys.stdout is None:
        sys.stdout = nowhere.open("w", encoding="utf-8")
    if sys.stderr is None:  # print would fall back to stdout, into the data
        sys.stderr = nowhere.open("w", encoding="utf-8")
    if isinstance(sys.stdout, io.TextIOWrapper):
        is_utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
