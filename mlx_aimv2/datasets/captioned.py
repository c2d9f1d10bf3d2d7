"""Images with captions, from tables or from text files beside them, in splits for training, validation and test."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import InputError
from ..events import Skipped
from ..messages import counted
from ..storage.text_files import read_lines
from .columns import CAPTION
from .options import Reading
from .rows import SPLITS, Row, Rows, check_split, check_there
from .splits import by_split, check_fraction, check_seed
from .table_folders import check_other_tables, read_tables, tables_of
from .tables import IN_FOLDERS, caption_text, names_captions, read_table
from .tree import Tree, name, parent, read_tree
from .unsupported import ENDINGS, endings_hint, form_of

SUFFIX = ".txt"


@dataclass(frozen=True)
class Captioned:
    """An image and what is said of it."""

    path: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class CaptionDataset:
    """Images with captions in three splits.

    Attributes:
        train: what is trained on.
        val: what is validated with while training; may be empty.
        test: what is measured with in the end; may be empty.
        root: the folder that the paths of a split record are relative to.
        val_fraction: what part of the images was held out; None where the data came with its own split.
        seed: what chose it.
        notices: what the user should know of the data.
        skipped: images that cannot be used, and why; those that cannot be opened are found later.
    """

    train: tuple[Captioned, ...]
    val: tuple[Captioned, ...] = ()
    test: tuple[Captioned, ...] = ()
    root: str = "."
    val_fraction: float | None = None
    seed: int = 0
    notices: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()

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
    data: str | os.PathLike[str],
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    training: bool = True,
    reading: Reading | None = None,
) -> CaptionDataset:
    """Images with captions of one of these forms.

    - a table (CSV and its relatives, JSON, JSON lines, Parquet, COCO's captions) with path and caption, perhaps with
      a column `split`. An image with several captions has several rows, or in JSON a list. Paths are relative to the
      folder of the file;
    - a folder with `train.csv` or `train.jsonl`, and perhaps such files called `val` and `test`;
    - a folder with `metadata.csv`, or with one in each of `train/`, `val/` and `test/`;
    - a folder with a `.txt` beside each image, every line of it a caption; perhaps in `train/`, `val/` and `test/`.

    All captions of an image are in one split; one that is listed twice counts once.

    Args:
        data: the folder or file.
        val_fraction: the part of the images that is held out for validation, where the data has no such split.
        seed: what chooses it.
        training: refuse what nothing could be learned from.
        reading: what to leave out.

    Raises:
        InputError: the data is none of these, or holds a mistake: the message names file and row.
    """
    check_fraction(val_fraction)
    check_seed(seed)
    path = Path(data)
    source = _rows(path, reading or Reading())
    root = path.parent if path.is_file() else path
    rows = _joined(source.rows, root)
    if training and not any(row.split in (None, "train") for row in rows):
        raise InputError(f"{path} holds no images for training: none of its rows is in the split train")
    found, fraction = by_split(rows, lambda row: (), val_fraction, seed)
    train, val, test = (
        tuple(Captioned(str(root / row.path), row.labels) for row in found[split]) for split in SPLITS
    )
    return CaptionDataset(
        train, val, test, str(root), fraction, seed, notices=source.notices, skipped=source.skipped
    )


def has_captions(data: Path, reading: Reading | None = None) -> bool:
    """Whether data that may be of either kind is captions: a table with such a column, or text files.

    Raises:
        InputError: a table cannot be read, or has neither labels nor captions.
    """
    reading = reading or Reading()
    if data.is_file():
        return names_captions(data, reading)
    if not data.is_dir():
        return False
    tree = read_tree(data, reading, IN_FOLDERS | ENDINGS)
    if tables := tables_of(tree).files:
        return names_captions(data / tables[0][0], reading, bool(tree.subfolders()))
    texts = {_stem(path) for path in _texts(tree)}
    others = [path for path in tree.others if not parent(path) and path.lower().endswith(tuple(IN_FOLDERS))]
    return not others and any(_stem(path) in texts for path in tree.images)


def _rows(data: Path, reading: Reading) -> Rows:
    """What the data holds, whatever its form."""
    check_there(data, "a .csv or .jsonl file, or a folder of images with captions")
    if not data.is_dir():
        return read_table(data, value=CAPTION, reading=reading)
    tree = read_tree(data, reading, IN_FOLDERS | ENDINGS)
    if (tables := tables_of(tree)).files:
        return read_tables(tree, tables, CAPTION, reading)
    check_other_tables(tree, "captions")
    return _text_rows(tree)


def _texts(tree: Tree) -> list[str]:
    return [path for path in tree.others if path.lower().endswith(SUFFIX)]


def _text_rows(tree: Tree) -> Rows:
    """A row for each image below a folder, with the lines of the text file beside it.

    Images without a caption, and texts without an image, are named and left out.

    Raises:
        InputError: there are no images, or none has a caption.
    """
    if not tree.images:
        advice = f": {found}" if (found := endings_hint(tree)) else ""
        raise InputError(f"{tree.root} holds no images{tree.only()}{advice}")
    if form := form_of(tree):
        raise InputError(f"{tree.root} {form}")
    texts = {_stem(path): path for path in _texts(tree)}
    splits = _split_folders(tree)
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
    if alone := [path for path in texts.values() if _stem(path) not in stems]:
        notices += (f"{counted(len(alone), 'text file')} without an image, such as {alone[0]}: left out",)
    return Rows(rows, notices, tuple(skipped))


def _stem(path: str) -> str:
    return path.removesuffix(PurePosixPath(path).suffix)


def _captions(root: Path, text: str | None) -> tuple[tuple[str, ...], str]:
    """The captions in a text file, or why there are none."""
    if text is None:
        return (), f"no caption: no {SUFFIX} file of its name lies beside it"
    try:
        lines = [line for line in read_lines(root / text) if line.strip()]
        captions = tuple(dict.fromkeys(caption_text(name(text), line) for line in lines))
    except InputError as error:
        return (), f"no caption: {error}"
    return captions, f"no caption: {name(text)} is empty"


def _split_folders(tree: Tree) -> dict[str, str]:
    """Names of the folders of the data that are splits -> which; none where there is no `train/`."""
    named = tree.split_folders()
    return named if "train" in named.values() else {}


def _joined(rows: Iterable[Row], root: Path) -> list[Row]:
    """``rows`` sorted by path, one for each image, with all its captions.

    Raises:
        InputError: an image is in two splits.
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
