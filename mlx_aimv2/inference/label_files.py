"""Labels that a user names: as options, or in a file of lines, of ids with names, or of JSON."""

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
        may_be_one = "/" in value or len(given) == 1
        if value.strip().lower().endswith(FILE_ENDINGS) or (may_be_one and _is_file(value)):
            found += read_label_file(Path(value.strip()), known)
        else:
            found += [_pair(part.strip()) for part in value.split(",") if part.strip()]
    return found


def _is_file(name: str) -> bool:
    try:
        return Path(name).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, no such home
        return False


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


@dataclass(frozen=True)
class Choice:
    """The labels that the images of some data are to be told apart by.

    Attributes:
        texts: what each is called in a prompt, by its name.
        numbers: of each class of the data, the place of its label.
        notices: what there is to say about them.
    """

    texts: dict[str, str]
    numbers: list[int | None]
    notices: list[Notice]


def choose(labels: Sequence[Label], classes: Sequence[str]) -> Choice:
    """The labels to choose from for images of some classes.

    A label is that of a class if both have one name, or are the same words.

    Args:
        labels: what is chosen from, whether or not the data has it; if each of them has a text, they name classes,
            and the classes of the data are what is chosen from.
        classes: names of the classes of the data.

    Raises:
        InputError: a label is given twice, two are the same words, or names are given for other classes alone.
    """
    found = _labels_of_classes(labels, classes)
    used = {label for label in found if label is not None}
    names_ids = all(label.text is not None for label in labels)
    if names_ids:
        if not used:
            raise InputError(
                f"--labels names {quoted(label.name for label in labels)}, and the data has {quoted(classes)}: the"
                " part before = (or a tab) has to be the name of a class"
            )
        chosen = [
            Label(name, label.text if label else None) for name, label in zip(classes, found, strict=True)
        ]
        numbers: list[int | None] = list(range(len(classes)))
    else:
        chosen = list(labels)
        places = {label: place for place, label in enumerate(labels)}
        numbers = [places[label] if label else None for label in found]
    texts = texts_of(chosen)
    notices = derived_notices(chosen, texts)
    if names_ids and (others := len(labels) - len(used)):
        notices.append(
            Notice(f"{others:,} of {len(labels):,} names of --labels are for classes that the data lacks")
        )
    return Choice(texts, numbers, notices)


def _labels_of_classes(labels: Sequence[Label], classes: Sequence[str]) -> list[Label | None]:
    known = set(classes)
    by_name: dict[str, Label] = {}
    by_words: dict[str, Label] = {}
    for label in labels:
        first = [by_name.setdefault(label.name, label)]
        if label.name not in known:
            first.append(by_words.setdefault(_words(label.name), label))
        if any(other is not label for other in first):
            raise InputError(f"--labels names {label.name!r} twice: keep one of them")
    return [by_name.get(name) or by_words.get(_words(name)) for name in classes]


def _words(name: str) -> str:
    return label_text(name).lower()


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
