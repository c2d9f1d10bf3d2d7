"""From what a person names (files, folders, patterns, a list) to the pictures meant."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import InputError

PICTURE_SUFFIXES = frozenset(
    """
    .jpg .jpeg .jpe .jfif .mpo .png .apng .webp .heic .heif .hif .avif .tif .tiff .bmp .dib .gif
    .jp2 .j2k .jpx .ppm .pgm .pbm .pnm .ico .icns .psd .dds .qoi .sgi
    """.split()
)


def expand(names: Iterable[str]) -> list[str]:
    """The pictures meant by ``names``, in their order.

    A file is taken whatever it is called, and as often as it is named, so that item k of a list stays item k. A
    folder gives every picture below it, sorted, hidden ones left out; a name with `*`, `?` or `[` that is no file
    is a pattern (`**` for any depth). Folders and patterns leave out what was named before.

    Raises:
        InputError: an empty name, or only folders and patterns without pictures.
    """
    found: list[str] = []
    seen: set[str] = set()
    empty: dict[str, str] = {}
    for name in names:
        files, named = _expand_one(name)
        if not files:  # named when it is opened, like every broken file, where there are others
            kind = "in the folder" if _is_folder(Path(name)) else "match"
            empty[name], files, named = f"no pictures {kind} {name}", [name], True
        found += files if named else [file for file in files if file not in seen]
        seen.update(files)
    if empty and len(empty) == len(found):
        raise InputError(next(iter(empty.values())))
    return found


def _expand_one(name: str) -> tuple[list[str], bool]:
    """The files meant by one name, and whether it names its file itself."""
    if not name:
        raise InputError("an empty name is no picture, no folder and no pattern")
    path = Path(name).expanduser() if name.startswith("~/") else Path(name)  # `~draft.jpg` is a file's name
    if _is_folder(path):
        return [str(file) for file in pictures_below(path)], False
    if not glob.has_magic(name) or path.exists():
        return [str(path)], True  # what is missing is named when it is opened, like every other broken file
    matches = sorted(glob.glob(str(path), recursive=True))
    pictures = [match for match in matches if Path(match).is_file() and is_picture(Path(match))]
    return pictures, False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # too long a name, or a folder above that may not be entered: opening it will say so
        return False


def pictures_below(folder: Path) -> Iterator[Path]:
    """Pictures below ``folder``, depth first, sorted; links to folders are not followed.

    A folder that may not be read stands for itself, so that opening it names the reason.
    """
    unreadable: list[Path] = []
    for root, folders, files in os.walk(
        folder, onerror=lambda error: unreadable.append(Path(error.filename))
    ):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root) / name for name in sorted(files) if is_picture(Path(name)))
    yield from unreadable


def is_picture(path: Path) -> bool:
    """Whether a file is called like a picture that is not hidden."""
    return not path.name.startswith(".") and path.suffix.lower() in PICTURE_SUFFIXES
