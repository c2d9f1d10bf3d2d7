"""Reading text files: one rule for encodings, byte order marks, line ends and lists of names.

Text is UTF-8, or what a byte order mark says; everything else is refused. A line ends at LF, CR LF or CR and nowhere
else: a form feed or U+2028 belongs to the line, where `str.splitlines` cuts.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import Aimv2Error, InputError
from .encodings import encoding_of
from .stand_ins import LOOK, stand_in

LINE_END = re.compile(r"\r\n|\n|\r")
PLAIN = ("utf-8", "utf-8-sig")


def read_text(
    path: str | os.PathLike[str], error: type[Aimv2Error] = InputError, max_bytes: int | None = None
) -> str:
    """The text of a file, without its byte order mark; line ends stay as they are.

    Args:
        path: the file.
        error: the type of the errors to raise.
        max_bytes: the largest size; a pipe or device is refused then. None reads anything.

    Raises:
        Aimv2Error: of the type ``error``; the file cannot be read, is too large, is not text, or stands in for
            another file.
    """
    name = str(path)[:200]
    try:
        path = Path(path)
        if max_bytes is not None:
            size = path.stat().st_size
            if not path.is_file():
                raise error(f"{name} is not a regular file")
            if size > max_bytes:
                raise error(f"{name}: {size} bytes is too large for a configuration")
        data = path.read_bytes()
    except Aimv2Error:
        raise
    except (OSError, ValueError) as problem:  # ValueError: a NUL byte in its name
        raise error.reading(name, problem) from problem
    return decode_text(data, str(path), error)


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a file, without their ends; raise InputError as `read_text` does."""
    return split_lines(read_text(path))


def decode_text(data: bytes, name: str, error: type[Aimv2Error] = InputError) -> str:
    """Bytes as text.

    Args:
        data: of a whole file.
        name: of the file, for messages.
        error: the type of the errors to raise.

    Raises:
        Aimv2Error: of the type ``error``; the bytes are neither UTF-8 nor what their byte order mark says, contain a
            NUL character, or stand in for another file.
    """
    if (content := stand_in(data[:LOOK])) is not None:
        raise error(f"{name} is {content}")
    encoding = encoding_of(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as problem:
        # Python counts from behind the mark of UTF-8
        offset = problem.start + (3 if encoding == "utf-8-sig" else 0)
        line = len(split_lines(data[:offset].decode(encoding, "ignore")))
        expected = "UTF-8" if encoding in PLAIN else f"{encoding.upper()}, as its first bytes say"
        where = f"{name}, line {line}, byte offset {offset}"
        raise error(f"{where}: not {expected}: save it as UTF-8") from problem
    before, nul, _ = text.partition("\0")
    if nul:
        where = f"{name}, line {len(split_lines(before))}, byte offset {len(before.encode(encoding))}"
        raise error(f"{where}: a NUL byte, so it is not text: save it as UTF-8")
    return text


def split_lines(text: str) -> list[str]:
    """Lines without their ends; as with `str.split`, there is one line more than ends."""
    return LINE_END.split(text)


def file_names(data: bytes) -> list[str]:
    """The file names in a list, one a line, or separated by NUL bytes if there are any.

    Bytes that are not UTF-8 become lone surrogates, as everywhere in Python (`os.fsencode` reverses it).
    """
    encoding = encoding_of(data)
    if encoding not in PLAIN:
        try:
            return _entries(data.decode(encoding))
        except UnicodeDecodeError:  # a name that begins with the bytes of a mark
            encoding = PLAIN[0]
    return _entries(data.decode(encoding, errors="surrogateescape"))


def texts(data: bytes, name: str) -> list[str]:
    """The texts in a list, one a line, or separated by NUL bytes if there are any.

    Args:
        data: the whole list.
        name: of the list, for messages.

    Raises:
        InputError: see `decode_text`.
    """
    if encoding_of(data) in PLAIN:
        decode_text(data.replace(b"\0", b"\n"), name)  # refuses what is not text
        entries = file_names(data)
    else:
        entries = _entries(decode_text(data, name))
    return [entry for entry in entries if entry.strip()]


def _entries(text: str) -> list[str]:
    return list(filter(None, text.split("\0") if "\0" in text else split_lines(text)))
