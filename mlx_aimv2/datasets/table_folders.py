"""Tables in a data folder: one for each split, or `metadata.csv` as in Hugging Face's imagefolder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from ..errors import InputError
from ..messages import counted
from ..sources.extensions import extension_of
from .options import Reading
from .rows import SPLIT_NAMES, Row, Rows
from .table_formats import TABLE_ENDINGS
from .tables import read_table
from .tree import Tree, parent

METADATA = "metadata"
NAMED_ENDINGS = TABLE_ENDINGS | {".json"}  # of tables that are named after a split, or `metadata`


Tables = list[tuple[str, str | None]]  # paths relative to the data folder, each with the split of its rows


def tables_of(tree: Tree) -> Tables:
    """The tables that belong to a data folder, if there are any.

    These are `train.csv` and those beside it; or `metadata.csv` below `train/` and the folders beside it, or the only
    table in such a folder; or `metadata.csv` in the data folder itself.

    Raises:
        InputError: two tables name the same images, or a split has no table.
    """
    if named := _split_tables(tree):
        return [(path, split) for split, path in named.items()]
    splits = tree.split_folders()
    tables = {folder: _in_split(tree, folder) for folder in splits}
    if any(tables.values()) and "train" in splits.values():
        for folder, split in splits.items():
            if not tables[folder] and (tree.below(folder) or split == "train"):
                other = next(paths[0] for paths in tables.values() if paths)
                raise InputError(f"{tree.root} holds {other}, but {folder}/ has no such table: add one")
        return [(path, splits[folder]) for folder, paths in tables.items() for path in paths]
    return [(path, None) for path in _metadata(tree, "")]


def read_tables(tree: Tree, tables: Tables, value: str, reading: Reading) -> Rows:
    """The rows of the tables of a data folder; a notice counts the images that no row names.

    Raises:
        InputError: see `read_table`.
    """
    rows: list[Row] = []
    notices: list[str] = []
    for path, split in tables:
        table = read_table(tree.root / path, split, value, reading, tree.root)
        rows += table.rows
        notices += table.notices
    if all(split is None for _, split in tables):
        rows = _by_folder(rows)
    known = {row.path for row in rows}
    if unnamed := [path for path in tree.images if path not in known]:
        what = counted(len(unnamed), "image")
        notices.append(f"{what} that no row names, such as {unnamed[0]}: left out")
    return Rows(rows, (*tree.notice(path for path, _ in tables), *notices))


def _by_folder(rows: list[Row]) -> list[Row]:
    """Rows in the split of their image's folder, if every row without a split lies in such a folder."""
    splits = [row.split or SPLIT_NAMES.get(row.path.partition("/")[0].lower()) for row in rows]
    if None in splits or "train" not in splits:
        return rows
    return [replace(row, split=split) for row, split in zip(rows, splits, strict=True)]


def _tables(tree: Tree, folder: str) -> list[str]:
    return [path for path in tree.others if parent(path) == folder and extension_of(path) in NAMED_ENDINGS]


def _split_tables(tree: Tree) -> dict[str, str]:
    """The tables in the data folder that are named after a split."""
    tables: dict[str, str] = {}
    for path in _tables(tree, ""):
        split = SPLIT_NAMES.get(PurePosixPath(path).stem.lower())
        if split in tables:
            raise InputError(f"{tree.root} holds both {tables[split]} and {path}: keep one of them")
        if split is not None:
            tables[split] = path
    if tables and "train" not in tables:
        raise InputError(f"{tree.root} holds {next(iter(tables.values()))} but no train.csv or train.jsonl")
    return tables


def _metadata(tree: Tree, folder: str) -> list[str]:
    """The table called `metadata` in a folder; an error if there are two."""
    tables = [path for path in _tables(tree, folder) if PurePosixPath(path).stem.lower() == METADATA]
    if len(tables) > 1:
        raise InputError(f"{tree.root} holds both {tables[0]} and {tables[1]}: keep one of them")
    return tables


def _in_split(tree: Tree, split: str) -> list[str]:
    """The tables in the folder of a split."""
    folders = [split, *(path for path in tree.folders if path.startswith(f"{split}/"))]
    if metadata := [path for folder in folders for path in _metadata(tree, folder)]:
        return metadata
    tables = [path for path in _tables(tree, split) if extension_of(path) in TABLE_ENDINGS]
    return tables if len(tables) == 1 and not tree.subfolders(split) else []


def check_other_tables(tree: Tree, what: str) -> None:
    """Refuse a table in the data folder whose name does not say whether it belongs to the data.

    Args:
        tree: the data folder.
        what: what the table may hold, such as labels.

    Raises:
        InputError: there is such a table.
    """
    for path in tree.others:
        if not parent(path) and extension_of(path) in TABLE_ENDINGS:
            folders = tree.subfolders()
            beside = f" beside the folder {folders[0]}" if folders else ""
            raise InputError(
                f"{tree.root} holds {path}{beside}, which may be its {what} or not: name the file {tree.root / path}"
                " itself, or move it out of the folder"
            )
