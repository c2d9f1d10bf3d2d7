"""Labels from options and from files: lines, ids with names, JSON."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..events import Notice
from ..messages import quoted
from ..storage.text_files import read_lines
from .class_names import WORDNET, label_text, label_texts, looks_like_id, reading_notices

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
    """A label of the user.

    Attributes:
        name: in results: a word, or the id of a class.
        text: the name in a prompt; None to derive it from ``name``.
    """

    name: str
    text: str | None = None


def read_labels(values: Sequence[str], known: Collection[str] = ()) -> list[Label]:
    """The labels of an option: separated by commas, some perhaps as `id=name`; or in a file.

    Args:
        values: of the option.
        known: the ids in the data, such as folder names; they distinguish `id,name` from a name with a comma.

    Raises:
        InputError: a file cannot be read, or is not a list of labels.
    """
    labels: list[Label] = []
    for value in values:
        may_be_file = "/" in value or len(values) == 1
        if value.strip().lower().endswith(FILE_ENDINGS) or (may_be_file and _is_file(value)):
            labels += read_label_file(Path(value.strip()), known)
        else:
            labels += [_pair(part.strip()) for part in value.split(",") if part.strip()]
    return labels


def _is_file(name: str) -> bool:
    try:
        return Path(name).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, no such home
        return False


def read_label_file(path: Path, known: Collection[str] = ()) -> list[Label]:
    """The labels in a file.

    A line is a label, or an id with a name after a tab or `=`; or after a comma or semicolon, if the first columns
    are ids or ``known``. JSON is a list of labels, or an object of names by ids.

    Raises:
        InputError: the file cannot be read, is empty, or is not a list of labels.
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
    """The lines of a text file that are not empty; no lines without a file. Raise InputError for an empty file."""
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
    """The text of each label in a prompt, by the name of the label.

    Raises:
        InputError: a name occurs twice, or two names give the same text.
    """
    texts: dict[str, str | None] = {}
    for label in labels:
        if label.name in texts:
            raise InputError(f"the label {label.name!r} is given twice")
        texts[label.name] = label.text
    plain = [name for name, text in texts.items() if text is None]
    derived = dict(zip(plain, label_texts(plain), strict=True))
    return {name: derived[name] if text is None else text for name, text in texts.items()}


@dataclass(frozen=True)
class Choice:
    """The labels that a classifier chooses from, for images of some classes.

    Attributes:
        texts: of the labels in a prompt, by name.
        numbers: for each class, the index of its label; None for a class without a label.
        notices: about the labels, for the user.
    """

    texts: dict[str, str]
    numbers: list[int | None]
    notices: list[Notice]


def choose(labels: Sequence[Label], classes: Sequence[str]) -> Choice:
    """Match labels with the classes of some data, by name or by text.

    Args:
        labels: to choose from. If all labels have a text, they only give names to classes, and the classifier chooses
            from the classes.
        classes: the names of the classes in the data.

    Raises:
        InputError: a label occurs twice, two labels have the same text, or no label with a text matches a class.
    """
    matches = _labels_of_classes(labels, classes)
    used = {label for label in matches if label is not None}
    are_names = all(label.text is not None for label in labels)
    if are_names:
        if not used:
            raise InputError(
                f"--labels names {quoted(label.name for label in labels)}, and the data has {quoted(classes)}: the"
                " part before = (or a tab) has to be the name of a class"
            )
        chosen = [
            Label(name, label.text if label else None) for name, label in zip(classes, matches, strict=True)
        ]
        numbers: list[int | None] = list(range(len(classes)))
    else:
        chosen = list(labels)
        places = {label: place for place, label in enumerate(labels)}
        numbers = [places[label] if label else None for label in matches]
    texts = texts_of(chosen)
    notices = derived_notices(chosen, texts)
    if are_names and (others := len(labels) - len(used)):
        notices.append(
            Notice(f"{others:,} of {len(labels):,} names of --labels are for classes that the data lacks")
        )
    return Choice(texts, numbers, notices)


def _labels_of_classes(labels: Sequence[Label], classes: Sequence[str]) -> list[Label | None]:
    known = set(classes)
    by_name: dict[str, Label] = {}
    by_text: dict[str, Label] = {}
    for label in labels:
        first = [by_name.setdefault(label.name, label)]
        if label.name not in known:
            first.append(by_text.setdefault(label_text(label.name).lower(), label))
        if any(other is not label for other in first):
            raise InputError(f"--labels names {label.name!r} twice: keep one of them")
    return [by_name.get(name) or by_text.get(label_text(name).lower()) for name in classes]


def derived_notices(labels: Iterable[Label], texts: Mapping[str, str]) -> list[Notice]:
    """A notice of the labels without a text of their own whose ``texts`` differ from their names."""
    plain = [label.name for label in labels if label.text is None]
    return reading_notices(plain, [texts[name] for name in plain])


def _pair(line: str) -> Label:
    """The label of a line, perhaps an id with a name."""
    for sign in ("\t", "="):
        name, _, rest = line.partition(sign)
        text = rest.split(sign)[0].strip() if sign == "\t" else rest.strip()
        if name.strip() and text:
            return Label(name.strip(), text)
    match = ID_SPACE_NAME.fullmatch(line)
    return Label(match[1], match[2]) if match else Label(line)


def _columns(lines: list[str], known: Collection[str]) -> list[tuple[str, str]] | None:
    """Pairs of id and name with a comma or semicolon between them; None if the lines are something else."""
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
    """A JSON object with all its pairs, also of repeated keys."""


def _named(path: Path, key: str, value: object) -> Label:
    """The label of an entry of an object; in ImageNet's index, the value is the id with the name."""
    if isinstance(value, list) and len(value) == 2 and re.fullmatch(WORDNET, str(value[0])):
        key, value = value
    if not isinstance(value, str) or not value.strip() or not key.strip():
        raise InputError(f"{path}: the name of {key!r:.80} is {value!r:.80}, not a text; {JSON_EXPECTED}")
    return Label(key.strip(), value.strip())
