"""Detection of files that stand in for the real one: Git LFS and git-annex pointers, saved web pages."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import Aimv2Error, DamagedFileError
from .encodings import encoding_of

LOOK = 1024  # bytes from the start of a file: a pointer of Git LFS has no more
WEB_PAGE = "a web page: download the file again"
PATTERNS = (
    (
        re.compile(r"version https?://(?:git-lfs\.github\.com|hawser\.github\.com|git-media\.io)/"),
        "a Git LFS pointer: run `git lfs pull` in its folder",
    ),
    (
        re.compile(r"(?:\.\./)*(?:\.git)?/annex/objects/\S+\s*\Z"),
        "a git-annex pointer: run `git annex get` in its folder",
    ),
    (
        re.compile(
            r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
        ),
        WEB_PAGE,
    ),
    (
        re.compile(
            r"\s*(?:<\?xml[^>]*>\s*<Error>|(?:Entry|Repository|Revision) not found\s*\Z|404: Not Found\s*\Z)"
        ),
        "the error message of a web server: download the file again",
    ),
)


def stand_in(start: bytes) -> str | None:
    """What a file is in place of the real one, and what to do; None for every other file.

    Args:
        start: the first `LOOK` bytes of the file, or all of them.

    Returns:
        Such as "a web page: download the file again".
    """
    text = start.decode(encoding_of(start), errors="replace")
    return next((description for pattern, description in PATTERNS if pattern.match(text)), None)


def check_stand_in(path: Path, error: type[Aimv2Error] = DamagedFileError) -> None:
    """Refuse a file that stands in for another; leave one that cannot be read to its reader.

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
    if (content := stand_in(start)) is not None:
        raise error(f"{os.fsdecode(path)} is {content}")
