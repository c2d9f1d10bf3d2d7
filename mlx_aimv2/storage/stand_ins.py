"""Files that stand in for the file that was meant: Git LFS pointers, git-annex pointers, saved web pages."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import Aimv2Error, DamagedFileError
from .encodings import decode_start

LOOK = 1024  # bytes from the start of a file: a pointer of Git LFS has no more
LFS_POINTER = re.compile(r"version https?://(?:git-lfs\.github\.com|hawser\.github\.com|git-media\.io)/")
ANNEX_POINTER = re.compile(r"(?:\.\./)*(?:\.git)?/annex/objects/\S+\s*\Z")
WEB_PAGE = re.compile(
    r"(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)
ERROR_ANSWER = re.compile(
    r"<\?xml[^>]*>\s*<Error>|(?:Entry|Repository|Revision) not found\s*\Z|404: Not Found\s*\Z"
)
WEB_PAGE_FOUND = "a web page: download the file again"


def stand_in(start: bytes) -> str | None:
    """What a file is in place of the one that was meant, and what to do; None for every other file.

    Args:
        start: the first `LOOK` bytes of the file, or all of them.

    Returns:
        Such as "a web page: download the file again".
    """
    text = decode_start(start)
    if LFS_POINTER.match(text):
        return "a Git LFS pointer: run `git lfs pull` in its folder"
    if ANNEX_POINTER.match(text):
        return "a git-annex pointer: run `git annex get` in its folder"
    if WEB_PAGE.match(text.lstrip()):
        return WEB_PAGE_FOUND
    if ERROR_ANSWER.match(text.lstrip()):
        return "the error message of a web server: download the file again"
    return None


def check_stand_in(path: Path, error: type[Aimv2Error] = DamagedFileError) -> None:
    """Refuse a file that stands in for another; one that cannot be read is left to its reader.

    Raises:
        Aimv2Error: of the type ``error``, with what the file is and what to do.
    """
    try:
        if not path.is_file():  # opening a named pipe waits for a writer
            return
        with path.open("rb") as file:
            start = file.read(LOOK)
    except OSError:
        return
    if (found := stand_in(start)) is not None:
        raise error(f"{os.fsdecode(path)} is {found}")
