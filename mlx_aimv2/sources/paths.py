"""Images that a user names: files, folders and patterns."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import InputError
from .addresses import is_address, without_credentials
from .extensions import extension_of, kind_of
from .folder_scan import Rules, Scan, holds, is_system, scan_folder
from .ignored import EXCLUDED, HIDDEN, SYSTEM, Ignored

ANY_DEPTH = "**"


def find_images(
    names: Iterable[str],
    exclude: Sequence[str] = (),
    many: tuple[tuple[str, ...], tuple[str, ...]] = ((), ()),
    addresses: bool = False,
) -> Scan:
    """The images that ``names`` stand for, in their order.

    A file counts whatever its extension, and as often as it is named, so that item k of a list stays item k. A folder
    stands for all images below it, see `scan_folder`. A name with `*`, `?` or `[` that is not a file is a pattern
    (`**` for any depth). Folders and patterns skip images that were named before. A subfolder that cannot be read
    stands for itself, so that opening it reports the reason.

    Args:
        names: of files, folders and patterns.
        exclude: patterns of names, or of paths relative to a named folder, to ignore.
        many: suffixes of files with many images that are found too: in folders, and by patterns.
        addresses: let HTTP(S) addresses stand for themselves.

    Raises:
        InputError: an empty name, an address that is not expected, or only folders and patterns without images.
    """
    rules = Rules(exclude=tuple(exclude), many=many[0])
    images: list[str] = []
    seen: set[str] = set()
    empty: dict[str, str] = {}
    ignored = Ignored()
    for name in names:
        if not name:
            raise InputError("an empty name is no image, no folder and no pattern")
        if is_address(name) and not addresses:
            advice = "download it first, only embed and classify read addresses"
            raise InputError(f"{without_credentials(name)} is not a file: {advice}")
        path = path_of(name)
        is_folder = holds(path.is_dir)
        # opening a missing file reports it
        is_file = not is_folder and (is_address(name) or not glob.has_magic(name) or holds(path.exists))
        if is_folder:
            scan = scan_folder(path, rules)
        elif is_file:
            scan = Scan((name if is_address(name) else str(path),))
        else:
            search = _matches_below if ANY_DEPTH in path.parts else _matches
            scan = search(path, replace(rules, many=many[1]))
        ignored += scan.ignored
        paths = [*scan.images, *(folder for folder, _ in scan.unreadable)]
        if not paths:  # where there are other images, opening the name reports it
            content = scan.ignored.summary()
            if is_folder:
                empty[name] = f"no images in the folder {name}: it holds {content or 'nothing'}"
            else:
                empty[name] = f"no images match {name}" + (f", only {content}" if content else "")
            paths, is_file = [name], True
        images += paths if is_file else [path for path in paths if path not in seen]
        seen.update(paths)
    if empty and len(empty) == len(images):
        raise InputError(next(iter(empty.values())))
    return Scan(tuple(images), ignored, empty=empty)


def path_of(name: str) -> Path:
    """The path that a name of the user stands for: `~/` is the home directory, and `~draft.jpg` a file."""
    return Path(name).expanduser() if name.startswith("~/") else Path(name)


def existing_file(base: Path, path: str) -> str | None:
    """A path in a table, relative to ``base``, as the file is called; None if it does not exist.

    Tables from Windows have backslashes in paths, and systems differ in how they write accents.
    """
    names = (path, path.replace("\\", "/"), *(unicodedata.normalize(form, path) for form in ("NFC", "NFD")))
    return next((name for name in dict.fromkeys(names) if _is_file(base / name)), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long a name, or a folder that may not be entered
        return False


def _matches(pattern: Path, rules: Rules) -> Scan:
    """The images that match a pattern."""
    depth = len(_fixed(pattern).parts)
    images: list[str] = []
    ignored = Ignored()
    for match in filter(os.path.isfile, sorted(glob.glob(str(pattern)))):
        relative = Path(match).parts[depth:]
        *folders, name = relative
        system = next(filter(is_system, folders), None)
        if system is not None:
            ignored.folders[SYSTEM, system] += 1
        elif rules.excludes_below("/".join(relative)):
            ignored.files[EXCLUDED, ""] += 1
        elif rules.finds(name):
            images.append(match)
        else:
            extension = extension_of(name)
            ignored.files[HIDDEN if name.startswith(".") else kind_of(extension), extension] += 1
    return Scan(tuple(images), ignored)


def _matches_below(pattern: Path, rules: Rules) -> Scan:
    """The images that match a pattern for any depth; `glob` would follow circles of links."""
    folder = _fixed(pattern)
    wanted = pattern.parts[len(folder.parts) :]
    scan = scan_folder(folder, replace(rules, accepts=lambda path: _fits(path.split("/"), wanted)))
    return replace(scan, images=tuple(sorted(scan.images)))


def _fixed(pattern: Path) -> Path:
    """The folder before the first part of a pattern with a wildcard."""
    parts = pattern.parts
    return Path(*parts[: next(place for place, part in enumerate(parts) if glob.has_magic(part))])


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == ANY_DEPTH:
        return any(_fits(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])
