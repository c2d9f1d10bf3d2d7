"""Data in folders, one per class, perhaps below `train/`, `val/` and `test/`."""

from __future__ import annotations

from ..errors import InputError
from ..messages import counted
from .rows import SPLIT_NAMES, Row, Rows, label_name
from .tree import Tree, name
from .unsupported import endings_hint, form_of


def read_folders(tree: Tree) -> Rows:
    """One row for every image below the class folders of some data; class folders without images are named.

    Raises:
        InputError: there are no class folders, none holds images, or images lie outside of them.
    """
    if form := form_of(tree):
        raise InputError(f"{tree.root} {form}")
    splits = _split_folders(tree)
    if splits is None:
        return _read_classes(tree, "", None)
    parts = [_read_classes(tree, folder, split) for split, folder in splits.items()]
    rows = [row for part in parts for row in part.rows]
    notices = [notice for part in parts for notice in part.notices]
    used = {row.path for row in rows}
    if rest := [path for path in tree.images if path not in used]:
        *first, last = (f"{folder}/" for folder in splits.values())
        folders = f"{', '.join(first)} and {last}" if first else last
        notices.append(f"{counted(len(rest), 'image')} outside of {folders}, such as {rest[0]}: left out")
    return Rows(rows, tuple(notices))


def _split_folders(tree: Tree) -> dict[str, str] | None:
    """`train/` and those beside it by split, or None where the folders of the data are the classes."""
    folders = tree.subfolders()
    named: dict[str, list[str]] = {}
    for folder in folders:
        if folder.lower() in SPLIT_NAMES:
            named.setdefault(SPLIT_NAMES[folder.lower()], []).append(folder)
    if sum(map(len, named.values())) < len(folders) and not any(map(tree.subfolders, named.get("train", []))):
        return None  # a class may be called `train` as well
    if not named:
        return None
    if "train" not in named:
        present = next(iter(named.values()))[0]
        raise InputError(f"{tree.root} holds {present}/ but no train/: add it, with a folder per class")
    for folders in named.values():
        if len(folders) > 1:
            raise InputError(f"{tree.root} holds both {folders[0]}/ and {folders[1]}/: keep one of them")
    return {split: folders[0] for split, folders in named.items()}


def _read_classes(tree: Tree, folder: str, split: str | None) -> Rows:
    """The images of one split."""
    path = tree.root / folder
    classes = tree.subfolders(folder)
    if form := form_of(tree, folder):
        raise InputError(f"{path} {form}")
    if not classes:
        advice = endings_hint(tree) or "put the images of each class into one"
        raise InputError(f"{path} holds no folder per class: {advice}")
    if loose := tree.loose(folder):
        raise InputError(
            f"{counted(len(loose), 'image')} in {path} beside the class folders, such as {name(loose[0])}:"
            " move each into the folder of its class"
        )
    images = {each: tree.below(each) for each in classes}
    empty = [each for each, found in images.items() if not found]
    if len(empty) == len(classes):
        advice = f": {found}" if (found := endings_hint(tree)) else ""
        raise InputError(f"no class folder of {path} holds images{tree.only()}{advice}")
    notices = [f"the class folder {tree.root / each} holds no images: left out" for each in empty]
    rows = [
        Row(image, (label_name(name(each)),), split, str(tree.root / image))
        for each, found in images.items()
        for image in found
    ]
    return Rows(rows, tuple(notices) if split in (None, "train") else ())
