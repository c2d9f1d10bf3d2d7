"""Labels that a user names: as options, or in a file of lines, of ids with names, or of JSON."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .class_names import WORDNET, label_texts, looks_like_id, reading_notices
from .errors import InputError
from .events import Notice
from .storage.text_files import read_lines

EXPECTED = "a file with one entry per line is expected"
JSON_EXPECTED = 'a list of labels, or {"id": "name"}, is expected'
FILE_ENDINGS = (".txt", ".csv", ".tsv", ".json")
ID_SPACE_NAME = re.compile(rf"({WORDNET})\s+(\S.*)")  # "n01440764 tench, Tinca tinca"
HEADERS = ("id", "class", "class_id", "classid", "label", "folder", "wnid", "synset", "code", "index"), (
    "name", "text", "label", "class_name", "classname", "description", "words",
)  # fmt: skip
ID2LABEL = "id2label"  # of a config.json


@dataclass(frozen=True)
class Label:
    """One label as a user names it.

    Attributes:
        name: what it is called in results: a word, or the id of a class.
        text: what it is called in a prompt; None where its name has to do.
    """

    name: str
    text: str | None = None


def read_labels(given: Sequence[str], known: Collection[str] = ()) -> list[Label]:
    """The labels of an option that takes them separated by commas, each perhaps as `id=name`, or the name of a file.

    Args:
        given: the values of the option.
        known: ids that occur, such as the names of folders; they tell `id,name` from a name with a comma.

    Raises:
        InputError: a file that cannot be read, or is no list of labels.
    """
    found: list[Label] = []
    for value in given:
        path = Path(value).expanduser()
        if path.suffix.lower() in FILE_ENDINGS or (path.is_file() and "," not in value):
            found += read_label_file(path, known)
        else:
            found += [_pair(part.strip()) for part in value.split(",") if part.strip()]
    return found


def read_label_file(path: Path, known: Collection[str] = ()) -> list[Label]:
    """The labels of a file.

    Lines are a label each, or an id with a name: after a tab or `=`, or, where the first parts are ids or ``known``,
    after a comma or semicolon. JSON is a list of labels, or an object of names by ids.

    Raises:
        InputError: it cannot be read, is empty, or is no list of labels.
    """
    lines = lines_of(path)
    if path.suffix.lower() == ".json" or re.match(r"[\[{]\s*(\"|$|[\]}])", lines[0]):
        return _from_json(path, "\n".join(lines))
    columns = _columns(lines, known)
    if columns is not None:
        return [Label(name, text) for name, text in columns]
    labels = [_pair(line) for line in lines]
    return labels[1:] if len(labels) > 1 and _is_header(labels[0]) else labels


def lines_of(path: Path | None) -> list[str]:
    """The lines of a text file that are not empty; none for no file.

    Raises:
        InputError: the file cannot be read, or is empty.
    """
    if path is None:
        return []
    try:
        lines = [line.strip() for line in read_lines(path.expanduser()) if line.strip()]
    except InputError as error:
        raise InputError(f"{error}; {EXPECTED}") from error
    if not lines:
        raise InputError(f"{path} is empty: one entry per line is expected")
    return lines


def texts_of(labels: Iterable[Label]) -> dict[str, str]:
    """What each label is called in a prompt, by its name.

    Raises:
        InputError: a name is given twice, or two names become the same words.
    """
    every = list(labels)
    given = {}
    for label in every:
        if label.name in given:
            raise InputError(f"the label {label.name!r} is given twice")
        given[label.name] = label.text
    plain = [label.name for label in every if label.text is None]
    texts = dict(zip(plain, label_texts(plain), strict=True))
    return {name: texts[name] if text is None else text for name, text in given.items()}


def derived_notices(labels: Iterable[Label], texts: Mapping[str, str]) -> list[Notice]:
    """A notice of the labels that came without a text, and were read as other words than they are."""
    plain = [label.name for label in labels if label.text is None]
    return reading_notices(plain, [texts[name] for name in plain])


def _pair(line: str) -> Label:
    """A label, or an id with a name."""
    for sign in ("\t", "="):
        name, found, rest = line.partition(sign)
        text = rest.split(sign)[0].strip() if sign == "\t" else rest.strip()
        if found and name.strip() and text:
            return Label(name.strip(), text)
    found_id = ID_SPACE_NAME.fullmatch(line)
    return Label(found_id[1], found_id[2]) if found_id else Label(line)


def _columns(lines: list[str], known: Collection[str]) -> list[tuple[str, str]] | None:
    """Ids and names that commas or semicolons separate; None where lines are something else."""
    for sign in (",", ";"):
        cells = csv.reader(lines, delimiter=sign, skipinitialspace=True)
        rows = [[cell.strip() for cell in row if cell.strip()] for row in cells]
        if any(len(row) < 2 for row in rows):
            continue
        pairs = [(row[0], f"{sign} ".join(row[1:])) for row in rows]
        has_header = len(pairs) > 1 and _is_header(Label(*pairs[0]))
        pairs = pairs[has_header:]
        names = [name for name, _ in pairs]
        if has_header or any(name in known for name in names) or all(map(looks_like_id, names)):
            return pairs
    return None


def _is_header(label: Label) -> bool:
    return label.name.lower() in HEADERS[0] and (label.text or "").lower() in HEADERS[1]


def _from_json(path: Path, text: str) -> list[Label]:
    """The labels of a JSON text.

    Raises:
        InputError: it is no JSON, or neither a list of labels nor an object of names by ids.
    """
    try:
        data = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    if isinstance(data, _Pairs):
        data = next((value for key, value in data if key == ID2LABEL and isinstance(value, _Pairs)), data)
        return [_named(path, key, value) for key, value in data]
    for label in data if isinstance(data, list) else [data]:
        if not isinstance(label, str) or not label.strip():
            raise InputError(f"{path}: a label must be a text, not {label!r:.80}; {JSON_EXPECTED}")
    return [Label(label.strip()) for label in data]


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON, with keys that come twice."""


def _named(path: Path, key: str, value: object) -> Label:
    """One entry of an object; ImageNet's index has the id and the name as its value."""
    if isinstance(value, list) and len(value) == 2 and re.fullmatch(WORDNET, str(value[0])):
        key, value = value
    if not isinstance(value, str) or not value.strip() or not key.strip():
        raise InputError(f"{path}: the name of {key!r:.80} is {value!r:.80}, not a text; {JSON_EXPECTED}")
    return Label(key.strip(), value.strip())
