"""From what a person names (files, folders, patterns, a list) to the images meant."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import InputError
from .extensions import ending_of, is_image, kind_of
from .folder_scan import Rules, Scan, is_system, scan_folder
from .ignored import EXCLUDED, HIDDEN, SYSTEM, LeftOut

ANY_DEPTH = "**"


def find_images(names: Iterable[str], exclude: Sequence[str] = ()) -> Scan:
    """The images meant by ``names``, in their order.

    A file is taken whatever it is called, and as often as it is named, so that item k of a list stays item k. A
    folder gives every image below it, see `scan_folder`; a name with `*`, `?` or `[` that is no file is a pattern
    (`**` for any depth). Folders and patterns leave out what was named before. A folder below that may not be read
    stands for itself, so that opening it names the reason.

    Args:
        names: of files and folders, and patterns.
        exclude: patterns of names, or of paths from the folder named, of what to leave out.

    Raises:
        InputError: an empty name, or only folders and patterns without images.
    """
    rules = Rules(exclude=tuple(exclude))
    images: list[str] = []
    seen: set[str] = set()
    empty: dict[str, LeftOut] = {}
    left_out = LeftOut()
    for name in names:
        scan, named = _find(name, rules)
        left_out += scan.left_out
        found = [*scan.images, *(path for path, _ in scan.unreadable)]
        if not found:  # named when it is opened, like every broken file, where there are others
            empty[name], found, named = scan.left_out, [name], True
        images += found if named else [file for file in found if file not in seen]
        seen.update(found)
    notes = {name: _nothing(name, rest) for name, rest in empty.items()}
    if empty and len(empty) == len(images):
        raise InputError(next(iter(notes.values())))
    return Scan(tuple(images), left_out, empty=notes)


def _find(name: str, rules: Rules) -> tuple[Scan, bool]:
    """What one name stands for, and whether it names a file itself."""
    if not name:
        raise InputError("an empty name is no image, no folder and no pattern")
    path = Path(name).expanduser() if name.startswith("~/") else Path(name)  # `~draft.jpg` is a file's name
    if is_folder(path):
        return scan_folder(path, rules), False
    if not glob.has_magic(name) or path.exists():
        return Scan((str(path),)), True  # what is missing is named when it is opened, like every broken file
    if ANY_DEPTH in path.parts:
        return _matches_below(path, rules), False
    return _matches(path, rules), False


def _matches(pattern: Path, rules: Rules) -> Scan:
    """What matches a pattern."""
    below = len(_fixed(pattern).parts)
    images: list[str] = []
    files: Counter[tuple[str, str]] = Counter()
    folders: Counter[tuple[str, str]] = Counter()
    for match in filter(os.path.isfile, sorted(glob.glob(str(pattern)))):
        *above, name = Path(match).parts[below:]
        paths = ["/".join(above[:end]) for end in range(1, len(above) + 1)]
        if any(map(is_system, above)):
            folders[SYSTEM, next(filter(is_system, above))] += 1
        elif any(map(rules.excludes, [*paths, "/".join([*above, name])])):
            files[EXCLUDED, ""] += 1
        elif is_image(name):
            images.append(match)
        else:
            files[HIDDEN if name.startswith(".") else kind_of(ending_of(name)), ending_of(name)] += 1
    return Scan(tuple(images), LeftOut(dict(files), dict(folders)))


def _fixed(pattern: Path) -> Path:
    """The folder in front of the first part of a pattern that stands for several."""
    parts = pattern.parts
    first = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])


def _matches_below(pattern: Path, rules: Rules) -> Scan:
    """What matches a pattern for any depth: `glob` would go round in circles of links."""
    folder = _fixed(pattern)
    wanted = pattern.parts[len(folder.parts) :]
    scan = scan_folder(folder, replace(rules, asked=lambda path: _fits(path.split("/"), wanted)))
    return replace(scan, images=tuple(sorted(scan.images)))


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == ANY_DEPTH:
        return any(_fits(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _nothing(name: str, left_out: LeftOut) -> str:
    """What to say of a name that stands for no image."""
    if not is_folder(Path(name).expanduser() if name.startswith("~/") else Path(name)):
        return f"no images match {name}" + (f", only {left_out.words()}" if left_out else "")
    return f"no images in the folder {name}: it holds {left_out.words() or 'nothing'}"


def is_folder(path: Path) -> bool:
    """Whether there is a folder of this name, as far as that can be seen."""
    try:
        return path.is_dir()
    except OSError:  # too long a name, or a folder above that may not be entered: opening it will say so
        return False
