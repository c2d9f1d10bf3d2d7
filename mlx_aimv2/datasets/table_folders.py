"""Folders of data with tables in them: one for each split, or `metadata.csv` as Hugging Face's imagefolder has it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from ..errors import InputError
from ..messages import counted
from .options import Reading
from .rows import SPLIT_NAMES, Row, Rows
from .tables import IN_FOLDERS, read_table, split_tables
from .tree import Tree, parent

METADATA = "metadata"
BY_NAME = IN_FOLDERS | {".json"}  # endings of tables that are called after a split, or `metadata`


@dataclass(frozen=True)
class Tables:
    """The tables that belong to a folder.

    Attributes:
        files: their paths from the folder of the data, and the split of the rows of each.
        by_split: whether each is called after its split, and stands for all of the data.
    """

    files: tuple[tuple[str, str | None], ...] = ()
    by_split: bool = False


def tables_of(tree: Tree) -> Tables:
    """The tables that belong to a folder, by their names; none where it has no such.

    These are `train.csv` and those beside it; or `metadata.csv` below `train/` and the folders beside it, or the only
    table in such a folder; or `metadata.csv` in the folder itself.

    Raises:
        InputError: two tables stand for the same images, or a split has none.
    """
    named = split_tables([tree.root / path for path in _tables(tree, "")])
    if named:
        return Tables(tuple((file.name, split) for split, file in named.items()), by_split=True)
    folders = tree.split_folders()
    found = {folder: _in_split(tree, folder) for folder in folders}
    if any(found.values()) and "train" in folders.values():
        for folder, tables in found.items():
            if not tables and (tree.below(folder) or folders[folder] == "train"):
                other = next(tables[0] for tables in found.values() if tables)
                raise InputError(f"{tree.root} holds {other}, but {folder}/ has no such table: add one")
        return Tables(tuple((path, folders[folder]) for folder, tables in found.items() for path in tables))
    return Tables(tuple((path, None) for path in _metadata(tree, "")))


def read_tables(tree: Tree, tables: Tables, value: str, reading: Reading) -> Rows:
    """The rows of the tables of a folder; images that no row names are counted.

    Raises:
        InputError: see `read_table`.
    """
    rows: list[Row] = []
    notices: list[str] = []
    for path, split in tables.files:
        part = read_table(tree.root / path, split, value, reading, tree.root)
        rows += part.rows
        notices += part.notices
    if all(split is None for _, split in tables.files):
        rows = _by_folder(rows)
    known = {row.path for row in rows}
    if unnamed := [path for path in tree.images if path not in known]:
        what = counted(len(unnamed), "image")
        notices.append(f"{what} that no row names, such as {unnamed[0]}: left out")
    return Rows(rows, (*tree.notice(path for path, _ in tables.files), *notices))


def _by_folder(rows: list[Row]) -> list[Row]:
    """Rows in the split of the folder that their image lies in, where all that name none lie in such folders."""
    splits = [row.split or SPLIT_NAMES.get(row.path.partition("/")[0].lower()) for row in rows]
    if None in splits or "train" not in splits:
        return rows
    return [replace(row, split=split) for row, split in zip(rows, splits, strict=True)]


def _tables(tree: Tree, folder: str) -> list[str]:
    return [path for path in tree.others if parent(path) == folder and _ending(path) in BY_NAME]


def _metadata(tree: Tree, folder: str) -> list[str]:
    """The table called `metadata` in a folder.

    Raises:
        InputError: there are two.
    """
    found = [path for path in _tables(tree, folder) if PurePosixPath(path).stem.lower() == METADATA]
    if len(found) > 1:
        raise InputError(f"{tree.root} holds both {found[0]} and {found[1]}: keep one of them")
    return found


def _in_split(tree: Tree, split: str) -> list[str]:
    """The tables of one split."""
    folders = [split, *(path for path in tree.folders if path.startswith(f"{split}/"))]
    found = [path for folder in folders for path in _metadata(tree, folder)]
    only = [path for path in _tables(tree, split) if _ending(path) in IN_FOLDERS]
    return found or (only if len(only) == 1 and not tree.subfolders(split) else [])


def check_other_tables(tree: Tree, what: str) -> None:
    """Refuse a table in the folder itself whose name does not say whether it belongs to the data.

    Args:
        tree: of the data.
        what: it may hold, such as labels.

    Raises:
        InputError: there is one.
    """
    for path in tree.others:
        if not parent(path) and _ending(path) in IN_FOLDERS:
            folders = tree.subfolders()
            beside = f" beside the folder {folders[0]}" if folders else ""
            raise InputError(
                f"{tree.root} holds {path}{beside}, which may be its {what} or not: name the file {tree.root / path}"
                " itself, or move it out of the folder"
            )


def _ending(path: str) -> str:
    return PurePosixPath(path).suffix.lower()
