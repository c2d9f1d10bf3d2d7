"""Text files as strings: one rule for encodings, byte order marks, line ends and lists of names.

UTF-8 is read, and what a byte order mark says; everything else is refused. A line ends at LF, CR LF or CR and
nowhere else: a form feed or U+2028 belongs to the line, where `str.splitlines` cuts.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import InputError
from .encodings import encoding_of
from .stand_ins import LOOK, stand_in

LINE_END = re.compile(r"\r\n|\n|\r")
PLAIN = ("utf-8", "utf-8-sig")


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file, without its byte order mark; line ends stay as they are.

    Raises:
        InputError: it cannot be read, is no text, or stands in for another file.
    """
    return decode_text(read_bytes(path), str(path))


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a file, without their ends.

    Raises:
        InputError: see `read_text`.
    """
    return split_lines(read_text(path))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in its name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{str(path)[:200]} cannot be read: {reason}") from error


def decode_text(data: bytes, name: str) -> str:
    """Bytes as text.

    Args:
        data: of a whole file.
        name: what messages call the file.

    Raises:
        InputError: they are neither UTF-8 nor what their byte order mark says, hold a NUL character, or are what
            stands in for another file.
    """
    if (found := stand_in(data[:LOOK])) is not None:
        raise InputError(f"{name} is {found}")
    encoding = encoding_of(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        offset = error.start + (3 if encoding == "utf-8-sig" else 0)  # Python counts from behind that mark
        line = _line(data[:offset].decode(encoding, "ignore"))
        expected = "UTF-8" if encoding in PLAIN else f"{encoding.upper()}, as its first bytes say"
        where = f"{name}, line {line}, byte offset {offset}"
        raise InputError(f"{where}: not {expected}: save it as UTF-8") from error
    before, nul, _ = text.partition("\0")
    if nul:
        where = f"{name}, line {_line(before)}, byte offset {len(before.encode(encoding))}"
        raise InputError(f"{where}: a NUL byte, so it is no text: save it as UTF-8")
    return text


def split_lines(text: str) -> list[str]:
    """Lines without their ends; like `str.split`, one more than there are ends."""
    return LINE_END.split(text)


def file_names(data: bytes) -> list[str]:
    """The file names in a list, one in each line, or separated by NUL bytes where there is one.

    Bytes that are no UTF-8 become lone surrogates, as everywhere in Python (`os.fsencode` gives them back).
    """
    return _entries(_list_text(data))


def texts(data: bytes, name: str) -> list[str]:
    """The texts in a list, one in each line, or separated by NUL bytes where there is one.

    Args:
        data: the whole list.
        name: what messages call it.

    Raises:
        InputError: see `decode_text`.
    """
    if encoding_of(data) in PLAIN:
        decode_text(data.replace(b"\0", b"\n"), name)  # refuses what is no text
        entries = file_names(data)
    else:
        entries = _entries(decode_text(data, name))
    return [entry for entry in entries if entry.strip()]


def _line(before: str) -> int:
    """The number of the line that comes after this text, from 1."""
    return len(split_lines(before))


def _list_text(data: bytes) -> str:
    encoding = encoding_of(data)
    if encoding not in PLAIN:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:  # a name that begins with the bytes of a mark
            encoding = PLAIN[0]
    return data.decode(encoding, errors="surrogateescape")


def _entries(text: str) -> list[str]:
    return list(filter(None, text.split("\0") if "\0" in text else split_lines(text)))
