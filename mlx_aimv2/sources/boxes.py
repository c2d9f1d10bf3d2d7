"""Files of boxes (CSV or JSON lines), which name regions of images; and tiles of every image."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..messages import counted, listed
from ..processing.crops import Box, checked_box, crops_of, tile_boxes
from ..processing.image_size import upright_size
from ..processing.options import DecodeOptions
from ..storage.text_files import read_lines, read_text
from .find import Found, NamedImage, find_sources
from .options import CropOptions, SourceOptions
from .paths import existing_file
from .readahead import DEFAULT_THREADS

PATHS = ("path", "file", "filename", "file_name", "image", "image_path")
EDGES = (  # names of the columns of a box; the last two of `SIZED` are its width and height
    ("left", "top", "right", "bottom"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
)
SIZED = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))
DELIMITERS = ",;\t"
DELIMITED, JSON_LINES = (".csv", ".tsv", ".txt"), (".jsonl", ".ndjson")
EXAMPLE = 'path,left,top,right,bottom, or lines such as {"path": "a.jpg", "boxes": [[10, 20, 110, 220]]}'

Columns = tuple[str, tuple[str, ...]]  # the names of the columns of the path and of the box


class Row(NamedTuple):
    """A box of a file.

    Attributes:
        path: of the image, as the file has it.
        box: the region in pixels of the upright image.
        id: the name that the file gives; empty for none.
        where: what messages call the row.
    """

    path: str
    box: Box
    id: str
    where: str


@dataclass(frozen=True)
class Cropped:
    """Crops in place of images.

    Attributes:
        found: the crops, and images that cannot be read. Crops of one image follow each other.
        notices: messages about what was left out.
    """

    found: Found
    notices: tuple[str, ...] = ()


def cropped(
    found: Found | None,
    options: CropOptions,
    source: SourceOptions | None = None,
    decode: DecodeOptions | None = None,
) -> Cropped:
    """The regions of images, as the options say.

    Args:
        found: the images; None for those that the file of boxes names.
        options: a file of boxes, or tiles.
        source: how to read files with many images.
        decode: how to read the sizes of images, for tiles.

    Raises:
        InputError: the file of boxes is not valid or belongs to other images; the message names the line.
    """
    if options.boxes is not None:
        return _boxed(found, options.boxes.expanduser(), source)
    assert found is not None
    return Cropped(_tiled(found, options.grid_of_tiles, decode or DecodeOptions()))


def _boxed(found: Found | None, file: Path, source: SourceOptions | None) -> Cropped:
    groups: dict[str, list[Row]] = {}
    rows = list(read_boxes(file))
    for row in rows:
        groups.setdefault(row.path, []).append(row)
    if not groups:
        raise InputError(f"{file} names no boxes: begin with {EXAMPLE}")
    if all(max(row.box) <= 1 for row in rows):
        raise InputError(
            f"{file}: no box reaches beyond pixel 1: boxes are in pixels, not in parts of the image"
        )
    names = {path: _located(file, path) for path in groups}
    notices = []
    if found is None:
        found = _named(file, names, source)
        left_out, without = 0, 0
    else:
        names = _matched(found, file, names)
        left_out = sum(len(group) for path, group in groups.items() if path not in names)
        without = len(set(found.names) - set(names.values()))
    if not names:
        raise InputError(f"{file} names none of the images, but others such as {next(iter(groups))}")
    if left_out:
        notices.append(
            f"left out {counted(left_out, 'box')} of {file}: of images that are not among the arguments"
        )
    if without:
        notices.append(f"left out {counted(without, 'image')} without a box in {file}")
    wanted: dict[str, list[Row]] = {}
    for path, name in names.items():
        wanted.setdefault(name, []).extend(groups[path])
    images = dict(zip(found.names, found.images, strict=True))
    chosen: list[NamedImage] = []
    for name, group in wanted.items():
        chosen += crops_of(images[name], [row.box for row in group], [row.id for row in group])
    return Cropped(Found(tuple(chosen)), tuple(notices))


def _named(file: Path, names: dict[str, str], source: SourceOptions | None) -> Found:
    """The images that a file of boxes names."""
    found = find_sources(names.values(), options=source)
    known = set(found.names)
    missing = next((name for name in names.values() if name not in known), None)
    if missing is not None:
        raise InputError(
            f"{file}: {missing} holds many images or none: name the archives, videos and tables that hold"
            " the images as arguments"
        )
    if not any("://" in name or os.path.lexists(name) for name in names.values()):
        raise InputError(
            f"no image of {file} exists, such as {next(iter(names))}: paths are relative to the folder of the file or"
            " to the working directory; name archives and videos as arguments"
        )
    return found


def _located(file: Path, path: str) -> str:
    """The path of an image as `find_sources` names it: relative to the folder of the file, else as it is."""
    for base in (file.parent, Path()):
        if (name := existing_file(base, path)) is not None:
            return str(base / name)
    return path if "://" in path else str(Path(path))


def _matched(found: Found, file: Path, names: Mapping[str, str]) -> dict[str, str]:
    """The names of the images that belong to the paths of a file of boxes."""
    known = set(found.names)
    absolute = {os.path.abspath(name): name for name in known}  # noqa: PTH100 - keeps links
    matched = {}
    for path, located in names.items():
        places = (absolute.get(os.path.abspath(place)) for place in (located, file.parent / path))  # noqa: PTH100
        if (name := path if path in known else next(filter(None, places), None)) is not None:
            matched[path] = name
    return matched


def _tiled(found: Found, grid: tuple[int, int], decode: DecodeOptions) -> Found:
    """The tiles of every image; an image of unknown size stands for itself, so that decoding reports the reason."""

    def tiles(image: NamedImage) -> list[NamedImage]:
        try:
            size = upright_size(image, decode)
        except Exception:  # noqa: BLE001 - decoding reports it, whatever it is
            return [image]
        return list(crops_of(image, tile_boxes(size, *grid), size=size))

    with ThreadPoolExecutor(DEFAULT_THREADS) as pool:
        return Found(
            tuple(tile for group in pool.map(tiles, found.images) for tile in group), empty=found.empty
        )


def read_boxes(file: Path) -> Iterator[Row]:
    """The boxes in a file.

    Raises:
        InputError: the file cannot be read or is not valid; the message names the line.
    """
    suffix = file.suffix.lower()
    if suffix in DELIMITED:
        rows = _read_delimited(file)
    elif suffix in JSON_LINES:
        rows = _read_json_lines(file)
    else:
        raise InputError(
            f"{file} is not a file of boxes: end its name in {', '.join(DELIMITED + JSON_LINES)}"
        )
    ids: dict[str, str] = {}
    for row in rows:
        if row.id and row.id in ids:
            raise InputError(f"{row.where}: the id {row.id!r} has been given in {ids[row.id]}: use it once")
        if row.id:
            ids[row.id] = row.where
        yield row


def _read_delimited(file: Path) -> Iterator[Row]:
    text = read_text(file)
    delimiter = max(DELIMITERS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] = []
    try:
        for cells in reader:
            where = f"{file}, line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if not names:
                names = [cell.strip().lower() for cell in cells]
                columns = _columns(where, names)
                continue
            if len(cells) != len(names):
                raise InputError(f"{where}: {counted(len(cells), 'field')}, but the header has {len(names)}")
            yield _row(where, dict(zip(names, cells, strict=True)), columns)
    except csv.Error as error:
        raise InputError(
            f"{file}, line {reader.line_num}: not valid CSV ({error}): check the quotes"
        ) from error


def _read_json_lines(file: Path) -> Iterator[Row]:
    for number, line in enumerate(read_lines(file), 1):
        where = f"{file}, line {number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not valid JSON ({error})") from error
        if not isinstance(record, dict):
            raise InputError(
                f'{where}: has to be an object such as {{"path": "a.jpg", "box": [10, 20, 110, 220]}}'
            )
        record = {key.lower(): value for key, value in record.items()}
        if "boxes" not in record:
            yield _row(where, record)
            continue
        boxes, ids = record["boxes"], record.get("ids")
        if not isinstance(boxes, list):
            raise InputError(f"{where}: boxes has to be a list of [left, top, right, bottom]")
        if ids is not None and not (isinstance(ids, list) and len(ids) == len(boxes)):
            raise InputError(
                f"{where}: ids has to be a list with an id for each of {counted(len(boxes), 'box')}"
            )
        for place, box in enumerate(boxes):
            yield _row(where, {**record, "box": box, "id": ids[place] if ids else None})


def _columns(where: str, names: Iterable[str]) -> Columns:
    """The names of the columns of the path and of the box."""
    names = list(names)
    path = next((name for name in PATHS if name in names), None)
    edges = next((group for group in (("box",), *EDGES, *SIZED) if set(group) <= set(names)), None)
    if path is None or edges is None:
        what = "path" if path is None else "box"
        raise InputError(f"{where}: no {what} among {listed(names, 8) or 'nothing'}: begin with {EXAMPLE}")
    return path, edges


def _row(where: str, values: Mapping[str, Any], columns: Columns | None = None) -> Row:
    path_column, edges = columns or _columns(where, values)
    path, name = values[path_column], values.get("id")
    if not isinstance(path, str) or not path.strip():
        raise InputError(f"{where}: no path of an image")
    name = "" if name is None else str(name).strip()
    if not name.isprintable():
        raise InputError(f"{where}: the id {name!r} holds a control character")
    box = values["box"] if edges == ("box",) else [values[edge] for edge in edges]
    try:
        if edges in SIZED:
            left, top, width, height = map(float, box)
            box = [left, top, left + width, top + height]
        return Row(path.strip(), checked_box(box), name, where)
    except InputError as error:
        raise error.at(where) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{where}: {', '.join(edges)} have to be numbers, not {listed(list(map(str, box)))}"
        ) from error
