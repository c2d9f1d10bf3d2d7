"""Labelled images in one folder per class, perhaps below `train/`, `val/` and `test/`."""

from __future__ import annotations

from ..errors import InputError
from ..messages import counted
from .rows import Row, Rows, label_name
from .tree import Tree, name, parent


def read_folders(tree: Tree) -> Rows:
    """A row for each image below the class folders of a data folder; notices name class folders without images.

    Raises:
        InputError: there are no class folders, none holds images, or images lie outside of them.
    """
    if layout := tree.unsupported_layout():
        raise InputError(f"{tree.root} {layout}")
    splits = _split_folders(tree)
    if splits is None:
        return _read_classes(tree, "", None)
    sources = [_read_classes(tree, folder, split) for split, folder in splits.items()]
    rows = [row for source in sources for row in source.rows]
    notices = [notice for source in sources for notice in source.notices]
    used = {row.path for row in rows}
    if rest := [path for path in tree.images if path not in used]:
        *first, last = (f"{folder}/" for folder in splits.values())
        folders = f"{', '.join(first)} and {last}" if first else last
        notices.append(f"{counted(len(rest), 'image')} outside of {folders}, such as {rest[0]}: left out")
    return Rows(rows, tuple(notices))


def _split_folders(tree: Tree) -> dict[str, str] | None:
    """The folder of each split; None where the top folders are the classes."""
    folders = tree.subfolders()
    named: dict[str, list[str]] = {}
    for folder, split in tree.split_folders().items():
        named.setdefault(split, []).append(folder)
    are_all = len(tree.split_folders()) == len(folders)
    if not named or not (are_all or any(map(tree.subfolders, named.get("train", [])))):
        return None  # a class may be called `train` as well
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
    if layout := tree.unsupported_layout(folder):
        raise InputError(f"{path} {layout}")
    if not classes:
        advice = tree.conversion_hint() or "put the images of each class into one"
        raise InputError(f"{path} holds no folder per class: {advice}")
    if loose := [path for path in tree.images if parent(path) == folder and path not in tree.folders]:
        raise InputError(
            f"{counted(len(loose), 'image')} in {path} beside the class folders, such as {name(loose[0])}:"
            " move each into the folder of its class"
        )
    images = {each: tree.below(each) for each in classes}
    empty = [each for each, paths in images.items() if not paths]
    if len(empty) == len(classes):
        raise InputError(f"no class folder of {path} holds images{tree.instead()}")
    notices = [f"the class folder {tree.root / each} holds no images: left out" for each in empty]
    rows = [
        Row(image, (label_name(name(each)),), split, str(tree.root / image))
        for each, paths in images.items()
        for image in paths
    ]
    return Rows(rows, tuple(notices) if split in (None, "train") else ())
