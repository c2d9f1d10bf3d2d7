"""Data in folders, one per class, perhaps below `train/`, `val/` and `test/`."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..sources.paths import is_picture, pictures_below
from .rows import SPLIT_NAMES, Row, label_name, natural


def read_folders(data: Path) -> list[Row]:
    """One row for every picture below the class folders of ``data``; hidden ones are left out.

    Raises:
        InputError: there are no class folders, one is empty, or pictures lie outside of them.
    """
    splits = _split_folders(data)
    if splits is None:
        return _read_classes(data, data, None)
    return [row for split, folder in splits.items() for row in _read_classes(folder, data, split)]


def subfolders(folder: Path) -> list[Path]:
    """The folders in ``folder`` that are not hidden, in their natural order.

    Raises:
        InputError: it cannot be read.
    """
    try:
        found = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error
    return sorted(found, key=lambda path: natural(path.name))


def _split_folders(data: Path) -> dict[str, Path] | None:
    """`train/` and those beside it by split, or None where the folders of ``data`` are the classes."""
    folders = subfolders(data)
    named: dict[str, list[Path]] = {}
    for folder in folders:
        if folder.name.lower() in SPLIT_NAMES:
            named.setdefault(SPLIT_NAMES[folder.name.lower()], []).append(folder)
    if sum(map(len, named.values())) < len(folders) and not any(map(subfolders, named.get("train", []))):
        return None  # a class may be called `train` as well
    if not named:
        return None
    if "train" not in named:
        present = next(iter(named.values()))[0].name
        raise InputError(f"{data} holds {present}/ but no train/: add it, with a folder per class")
    for folders in named.values():
        if len(folders) > 1:
            raise InputError(f"{data} holds both {folders[0].name}/ and {folders[1].name}/: keep one of them")
    return {split: folders[0] for split, folders in named.items()}


def _read_classes(folder: Path, data: Path, split: str | None) -> list[Row]:
    """The pictures of one split."""
    classes = subfolders(folder)
    if not classes:
        raise InputError(f"{folder} holds no folder per class: put the pictures of each class into one")
    loose = sorted(path.name for path in folder.iterdir() if is_picture(path) and path not in classes)
    if loose:
        raise InputError(
            f"{counted(len(loose), 'picture')} in {folder} beside the class folders, such as {loose[0]}:"
            " move each into the folder of its class"
        )
    pictures = {path: list(pictures_below(path)) for path in classes}
    empty = [path for path, found in pictures.items() if not found]
    if empty and split in (None, "train"):
        others = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        raise InputError(
            f"the class folder {empty[0]}{others} holds no pictures: add some, or remove the folder"
        )
    return [
        Row(picture.relative_to(data).as_posix(), (label_name(path.name),), split, str(picture))
        for path, found in pictures.items()
        for picture in found
    ]


def counted(count: int, noun: str) -> str:
    """Such as `1 picture` or `3 pictures`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
