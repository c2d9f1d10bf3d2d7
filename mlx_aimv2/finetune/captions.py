"""Pictures with captions, from tables or from text files beside them, in splits for training, validation and test."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..sources.paths import pictures_below
from ..storage.text_files import read_lines
from .folders import counted, subfolders
from .rows import SPLIT_NAMES, SPLITS, Row, check_split, check_there
from .splits import by_split, check_fraction, check_seed
from .tables import READERS, caption_text, names_captions, read_table, split_tables, table_files

CAPTION = "caption"
SUFFIX = ".txt"


@dataclass(frozen=True)
class Captioned:
    """A picture and what is said of it."""

    path: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class CaptionDataset:
    """Pictures with captions in three splits.

    Attributes:
        train: what is trained on.
        val: what is validated with while training; may be empty.
        test: what is measured with in the end; may be empty.
        root: the folder that the paths of a split record are relative to.
        val_fraction: what part of the pictures was held out; None where the data came with its own split.
        seed: what chose it.
    """

    train: tuple[Captioned, ...]
    val: tuple[Captioned, ...] = ()
    test: tuple[Captioned, ...] = ()
    root: str = "."
    val_fraction: float | None = None
    seed: int = 0

    def split(self, name: str) -> tuple[Captioned, ...]:
        """The examples of "train", "val" or "test".

        Raises:
            InputError: another name.
        """
        if name not in SPLITS:
            raise InputError(f"there is no split {name!r}: choose among {', '.join(SPLITS)}")
        examples: tuple[Captioned, ...] = getattr(self, name)
        return examples


def read_captions(
    data: str | os.PathLike[str], *, val_fraction: float = 0.2, seed: int = 0, training: bool = True
) -> CaptionDataset:
    """Pictures with captions of one of these forms.

    - a `.csv` or `.jsonl` file with path and caption, perhaps with a column `split`. A picture with several captions
      has several rows, or in JSON a list. Paths are relative to the folder of the file;
    - a folder with `train.csv` or `train.jsonl`, and perhaps such files called `val` and `test`;
    - a folder with a `.txt` beside each picture, every line of it a caption; perhaps in `train/`, `val/` and `test/`.

    All captions of a picture are in one split; one that is listed twice counts once.

    Args:
        data: the folder or file.
        val_fraction: the part of the pictures that is held out for validation, where the data has no such split.
        seed: what chooses it.
        training: refuse what nothing could be learned from.

    Raises:
        InputError: the data is none of these, or holds a mistake: the message names file and row.
    """
    check_fraction(val_fraction)
    check_seed(seed)
    path = Path(data)
    rows = _rows(path)
    root = path.parent if path.is_file() else path
    rows = _joined(rows, root)
    if training and not any(row.split in (None, "train") for row in rows):
        raise InputError(f"{path} holds no pictures for training: none of its rows is in the split train")
    found, fraction = by_split(rows, lambda row: (), val_fraction, seed)
    train, val, test = (
        tuple(Captioned(str(root / row.path), row.labels) for row in found[split]) for split in SPLITS
    )
    return CaptionDataset(train, val, test, root=str(root), val_fraction=fraction, seed=seed)


def has_captions(data: Path) -> bool:
    """Whether data that may be of either kind is captions: a table with such a column, or text files.

    Raises:
        InputError: a table cannot be read.
    """
    if data.is_file():
        return data.suffix.lower() in READERS and names_captions(data)
    if not data.is_dir():
        return False
    if tables := list(split_tables(data).values()):
        return names_captions(tables[0])
    return not table_files(data) and any(x.with_suffix(SUFFIX).is_file() for x in pictures_below(data))


def _rows(data: Path) -> list[Row]:
    """What the data holds, whatever its form."""
    check_there(data, "a .csv or .jsonl file, or a folder of pictures with captions")
    if not data.is_dir():
        return read_table(data, value=CAPTION)
    if named := split_tables(data):
        return [row for split in named for row in read_table(named[split], split, CAPTION)]
    if tables := table_files(data):
        raise InputError(
            f"{data} holds {tables[0].name}, which may be its captions or not: name the file {tables[0]} itself,"
            " or move it out of the folder"
        )
    return _text_rows(data)


def _text_rows(data: Path) -> list[Row]:
    """A row for each picture below a folder, with the lines of the text file beside it.

    Raises:
        InputError: a picture has no text file, a text file no picture, or one of them no text.
    """
    pictures = list(pictures_below(data))
    if not pictures:
        raise InputError(f"{data} holds no pictures: name the folder that they lie in")
    texts = {path.with_suffix(SUFFIX) for path in pictures}
    missing = [path for path in pictures if not path.with_suffix(SUFFIX).is_file()]
    if missing:
        raise InputError(
            f"{counted(len(missing), 'picture')} in {data} without a caption, such as"
            f" {missing[0].relative_to(data)}: write it into {missing[0].with_suffix(SUFFIX).name} beside it, or"
            " take the picture out"
        )
    files = (path for path in data.rglob(f"*{SUFFIX}") if not _is_hidden(path.relative_to(data)))
    lonely = sorted(path for path in files if path not in texts)
    if lonely:
        raise InputError(
            f"{counted(len(lonely), 'caption file')} in {data} without a picture, such as"
            f" {lonely[0].relative_to(data)}: add the picture, or take the file out"
        )
    splits = _split_folders(data)
    return [
        Row(
            path.relative_to(data).as_posix(),
            _lines(path),
            splits.get(path.relative_to(data).parts[0]),
            str(path),
        )
        for path in pictures
    ]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _lines(picture: Path) -> tuple[str, ...]:
    file = picture.with_suffix(SUFFIX)
    lines = [line for line in read_lines(file) if line.strip()]
    if not lines:
        raise InputError(f"{file}: an empty caption")
    return tuple(dict.fromkeys(caption_text(str(file), line) for line in lines))


def _split_folders(data: Path) -> dict[str, str]:
    """Names of the folders in ``data`` that are splits -> which; none where there is no `train/`."""
    named = {
        path.name: SPLIT_NAMES[path.name.lower()]
        for path in subfolders(data)
        if path.name.lower() in SPLIT_NAMES
    }
    return named if "train" in named.values() else {}


def _joined(rows: Iterable[Row], root: Path) -> list[Row]:
    """``rows`` sorted by path, one for each picture, with all its captions.

    Raises:
        InputError: a picture is in two splits.
    """
    first: dict[str, Row] = {}
    captions: dict[str, dict[str, None]] = {}
    for row in rows:
        path = os.path.normpath(root.absolute() / row.path)
        other = first.setdefault(path, row)
        check_split(row, other)
        captions.setdefault(path, {}).update(dict.fromkeys(row.labels))
    joined = [Row(row.path, tuple(captions[path]), row.split, row.where) for path, row in first.items()]
    return sorted(joined, key=lambda row: row.path)
