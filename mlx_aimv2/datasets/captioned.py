"""Images with captions from tables or .txt files beside the images, split into train, val and test."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ..errors import InputError
from ..events import Skipped
from ..messages import counted
from ..storage.text_files import read_lines
from .columns import CAPTION
from .options import Reading
from .rows import Row, Rows, check_exists, merge_rows
from .splits import Item, Splits, check_split_options, check_training, split_rows
from .table_folders import check_other_tables, read_tables, tables_of
from .table_formats import TABLE_ENDINGS
from .tables import caption_text, has_caption_column, read_table
from .tree import Tree, name, parent, read_tree

SUFFIX = ".txt"


@dataclass(frozen=True)
class Captioned(Item):
    """An image and its captions."""

    captions: tuple[str, ...]


CaptionDataset = Splits[Captioned]


def read_captions(
    data: str | os.PathLike[str],
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    training: bool = True,
    reading: Reading | None = None,
) -> CaptionDataset:
    """Read images with captions in one of these forms.

    - a table (CSV and its relatives, JSON, JSON lines, Parquet, COCO's captions) with path and caption, perhaps with
      a column `split`. An image with several captions has several rows, or in JSON a list. Paths are relative to the
      folder of the file;
    - a folder with `train.csv` or `train.jsonl`, and perhaps such files called `val` and `test`;
    - a folder with `metadata.csv`, or with one in each of `train/`, `val/` and `test/`;
    - a folder with a `.txt` beside each image, every line of it a caption; perhaps in `train/`, `val/` and `test/`.

    All captions of an image are in one split; a caption that is listed twice counts once.

    Args:
        data: the folder or file.
        val_fraction: the share of the images to hold out for validation, where the data has no such split.
        seed: chooses the images held out.
        training: refuse data without images for training.
        reading: what to leave out, and which columns to use.

    Raises:
        InputError: the data has none of these forms, or has a mistake: the message names file and row.
    """
    check_split_options(val_fraction, seed)
    path = Path(data)
    source = _read(path, reading or Reading())
    root = path.parent if path.is_file() else path
    source = merge_rows(source, root, _all_captions)
    if training:
        check_training(source, path)

    def captioned(row: Row) -> Captioned:
        return Captioned(str(root / row.path), row.labels)

    return split_rows(source, root, captioned, lambda _: (), val_fraction, seed)


def has_captions(data: Path, reading: Reading | None = None) -> bool:
    """Whether data that may hold labels or captions holds captions: in a column of a table, or in .txt files.

    Raises:
        InputError: a table cannot be read, or has neither labels nor captions.
    """
    reading = reading or Reading()
    if data.is_file():
        return has_caption_column(data, reading)
    if not data.is_dir():
        return False
    tree = read_tree(data, reading)
    if tables := tables_of(tree):
        return has_caption_column(data / tables[0][0], reading, labels_optional=bool(tree.subfolders()))
    if any(not parent(path) and path.lower().endswith(tuple(TABLE_ENDINGS)) for path in tree.others):
        return False
    texts = _texts(tree)
    return any(_stem(path) in texts for path in tree.images)


def _read(data: Path, reading: Reading) -> Rows:
    """The rows of a table, of the tables in a folder, or of the text files beside its images."""
    check_exists(data, "a .csv or .jsonl file, or a folder of images with captions")
    if not data.is_dir():
        return read_table(data, value=CAPTION, reading=reading)
    tree = read_tree(data, reading)
    if tables := tables_of(tree):
        return read_tables(tree, tables, CAPTION, reading)
    check_other_tables(tree, "captions")
    return _read_text_files(tree)


def _all_captions(first: Row, row: Row) -> Row:
    return replace(first, labels=tuple(dict.fromkeys((*first.labels, *row.labels))))


def _read_text_files(tree: Tree) -> Rows:
    """A row for each image, with the lines of the text file beside it."""
    if not tree.images:
        raise InputError(f"{tree.root} holds no images{tree.instead()}")
    if layout := tree.unsupported_layout():
        raise InputError(f"{tree.root} {layout}")
    texts = _texts(tree)
    splits = tree.split_folders()
    if "train" not in splits.values():
        splits = {}
    rows, skipped = [], []
    for image in tree.images:
        captions, problem = _captions(tree.root, texts.get(_stem(image)))
        path = str(tree.root / image)
        if captions:
            rows.append(Row(image, captions, splits.get(image.partition("/")[0]), path))
        else:
            skipped.append(Skipped(path, problem))
    if not rows:
        first = name(tree.images[0])
        raise InputError(
            f"no caption for {counted(len(skipped), 'image')} in {tree.root}: write those of {first} into"
            f" {_stem(first)}{SUFFIX} beside it, one in each line ({skipped[0].reason})"
        )
    stems = set(map(_stem, tree.images))
    notices = tree.notice(texts.values())
    if alone := [path for stem, path in texts.items() if stem not in stems]:
        notices += (f"{counted(len(alone), 'text file')} without an image, such as {alone[0]}: left out",)
    return Rows(rows, notices, tuple(skipped))


def _texts(tree: Tree) -> dict[str, str]:
    """The text files of a folder by their paths without the suffix."""
    return {_stem(path): path for path in tree.others if path.lower().endswith(SUFFIX)}


def _stem(path: str) -> str:
    return path.removesuffix(PurePosixPath(path).suffix)


def _captions(root: Path, text: str | None) -> tuple[tuple[str, ...], str]:
    """The captions in a text file, and the reason if there are none."""
    if text is None:
        return (), f"no caption: no {SUFFIX} file of its name lies beside it"
    try:
        lines = [line for line in read_lines(root / text) if line.strip()]
        captions = tuple(dict.fromkeys(caption_text(name(text), line) for line in lines))
    except InputError as error:
        return (), f"no caption: {error}"
    return captions, f"no caption: {name(text)} is empty"
