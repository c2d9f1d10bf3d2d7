"""What `-` stands for among the arguments of a verb: a list on stdin."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from ..errors import InputError

DASH = "-"


def with_names(given: Iterable[str]) -> list[str]:
    """The arguments, with the file names on stdin in the place of `-`.

    Raises:
        InputError: nothing is piped into stdin.
    """
    from ..storage.text_files import file_names

    return _with_stdin(given, "images", file_names)


def with_texts(given: Iterable[str]) -> list[str]:
    """The arguments, with the texts on stdin in the place of `-`.

    Raises:
        InputError: nothing is piped into stdin, it is no text, or there are no texts.
    """
    from ..storage.text_files import texts

    given = list(given)
    found = _with_stdin(given, "texts", lambda data: texts(data, "stdin"))
    if not found:
        raise InputError("no texts: the list on stdin is empty")
    return found


def _with_stdin(given: Iterable[str], what: str, entries: Callable[[bytes], list[str]]) -> list[str]:
    return [entry for one in given for entry in (entries(_bytes(what)) if one == DASH else [one])]


def _bytes(what: str) -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError(f"- reads a list of {what} from stdin, and nothing is piped into it")
    return sys.stdin.buffer.read()
