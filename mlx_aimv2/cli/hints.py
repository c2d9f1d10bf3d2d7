"""Messages of the library without the options that a verb lacks."""

from __future__ import annotations

import functools
import re

REPHRASED = (  # an option, what a message says of it, what takes its place where the verb has no such option
    (
        "--weights",
        r": name one with --weights",
        ": keep the one that is meant, without the others, in a folder",
    ),
    ("--model", r" with --model\b(?! \S)|--model (?=\S)", ""),
    ("--max-megapixels", r", --max-megapixels", ""),
    ("--allow-truncated", r"(: )?allow_truncated \(--allow-truncated\) takes the pixels that are there", ""),
    ("--dtype", r"--dtype (?=\S)", ""),
    ("--any-base", r" \(--any-base\)", ""),
    ("--none", r", a background label \(--none [^)]*\), or ask for --score cosine", ""),
    (
        "--interpolate-positions",
        r" with --interpolate-positions",
        " with `mlx-aimv2 convert --interpolate-positions`",
    ),
    ("--force", r", or replace it with --force", ""),
)


def fitted(message: str, verb: str) -> str:
    """A message of the library, without the options that a verb lacks."""
    if "--" not in message or not verb:
        return message
    own = options_of(verb)
    for option, pattern, instead in REPHRASED:
        if option not in own:
            message = re.sub(pattern, instead, message)
    return message


@functools.cache
def options_of(verb: str) -> frozenset[str]:
    """The long options of a verb."""
    from typer.main import get_command

    from .app import app

    parameters = get_command(app).commands[verb].params  # type: ignore[attr-defined]
    return frozenset(
        name for one in parameters for name in (*one.opts, *one.secondary_opts) if name.startswith("--")
    )
