"""Names of classes as words for prompts, such as "black duck" for the folder "n01855672-black_duck"."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import unquote

from ..errors import InputError
from ..events import Notice
from ..messages import FEW, quoted

WORDNET = r"[nvar]\d{8}"
NUMBERED = re.compile(r"(\d+)[._-]+(?=[^\W\d_])")  # "3-pear", but "3 pears"
ALWAYS_NUMBERING = re.compile(r"^(?:0\d*[\s._-]+|\d+\.\s*)(?=[^\W\d_])")  # whatever the other names are
AROUND_WORDNET = re.compile(rf"^{WORDNET}[\s._-]+|(?<![\s._-])[\s._-]+{WORDNET}$")
SEPARATORS = re.compile(
    r"[_\s]+"
    r"|(?<=\w)[.+~|:;=@·•–—]+(?=[^\W\d_])"  # "black+ring" and "St.Bernard", not "C++" or "1.5"
    r"|(?<!\b[^\W\d_])(?<=\w)-+(?=\w)"  # not "t-shirt"
)
ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
IDS = re.compile(
    rf"{WORDNET}|\d{{8}}-[nvar]"
    r"|[\d\W_]*"  # a number, or nothing but signs
    r"|Q\d+|m[._]0\w{2,}"  # Wikidata, Freebase
    r"|[a-z]\d+"
    r"|(?i:class|klass|label|category|cls|cat|idx?|index|item|object|folder|group|type|cluster|sample|part|set|img"
    r"|image|person|subject|user|identity|speaker)[\s._-]*\d+"
    r"|(?i:[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12})"
    r"|(?i:(?=\D*\d)[0-9a-f]{8,})"  # a hash
    r"|(?=(?:[A-Za-z]+\d+){3})(?=.*[A-Z])(?=.*[a-z])[0-9A-Za-z]{10,}"
)


def label_texts(names: Sequence[str]) -> list[str]:
    """The names of classes in prompts.

    A name with spaces is already a text: only its underscores become spaces. In other names separators become spaces,
    "BlackRing" becomes two words, URL escapes ("black%20ring") are decoded, and WordNet ids and the numbering of
    folders ("n01855672-duck", "001.Black_footed_Albatross") are removed.

    Args:
        names: of all classes, which decide together whether a leading number is a numbering or a part of the name.

    Raises:
        InputError: two names give the same text.
    """
    texts = [label_text(name) for name in _unnumbered([_unescaped(name) for name in names])]
    for text, (first, second, *_) in _same(zip(names, texts, strict=True)).items():
        raise InputError(
            f"the classes {first!r} and {second!r} are both {text!r} in a prompt: tell them apart with"
            f" --labels '{first}=a name,{second}=another'"
        )
    return texts


def label_text(name: str) -> str:
    """The name of a class in a prompt, without regard to the other classes."""
    name = _unescaped(name)
    if IDS.fullmatch(name.strip()):
        return name.strip()
    bare = ALWAYS_NUMBERING.sub("", AROUND_WORDNET.sub("", name), count=1)
    has_spaces = any(sign.isspace() for sign in bare.strip())
    if has_spaces:
        words = bare.replace("_", " ").split()
    else:
        words = [part for word in SEPARATORS.sub(" ", bare).split() for part in _camel_parts(word)]
    return " ".join(words) or name.strip()


def reading_notices(names: Sequence[str], texts: Sequence[str]) -> list[Notice]:
    """A notice of the ``names`` that differ from their ``texts`` by more than underscores; or no notice."""
    pairs = zip(names, texts, strict=True)
    read = [
        f"{name!r} as {text!r}" for name, text in pairs if text != " ".join(name.replace("_", " ").split())
    ]
    more = f", and {len(read) - FEW:,} more" if len(read) > FEW else ""
    return [Notice(f"names are read as words: {', '.join(read[:FEW])}{more}")] if read else []


def same_notices(texts: Mapping[str, str]) -> list[Notice]:
    """A notice of labels with the same text in a prompt, or no notice; ``texts`` are by the names of the labels."""
    same = [f"{', '.join(map(repr, names))}: {text!r}" for text, names in _same(texts.items()).items()]
    more = f"; and {len(same) - FEW:,} more" if len(same) > FEW else ""
    message = "labels that are the same words, of which the first is always chosen"
    return [Notice(f"{message}: {'; '.join(same[:FEW])}{more}")] if same else []


def _same(texts: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The names of labels by a text that several have; the tokenizer ignores case and repeated spaces."""
    by_text: dict[str, list[str]] = {}
    for name, text in texts:
        by_text.setdefault(" ".join(text.lower().split()), []).append(name)
    return {text: names for text, names in by_text.items() if len(names) > 1}


def looks_like_id(name: str) -> bool:
    """Whether a name has no meaning for a model, such as "n01855672", "7", "class_3" or a hash."""
    return any(IDS.fullmatch(form) for form in (name.strip(), label_text(name)))


def id_notices(texts: Iterable[str]) -> list[Notice]:
    """A notice of prompt texts that look like ids, or no notice."""
    texts = list(texts)
    ids = [text for text in texts if looks_like_id(text)]
    if not ids:
        return []
    what = "looks like an id" if len(ids) == 1 else "look like ids"
    return [
        Notice(
            f"{len(ids)} of {len(texts)} labels {what}, which say nothing to a model: {quoted(ids)}; say what they"
            f" mean with --labels FILE, each line an id, a tab and a name, or --labels '{ids[0]}=a name'"
        )
    ]


def _unescaped(name: str) -> str:
    """A name with its URL escapes decoded, if they encode printable UTF-8."""
    if not ESCAPE.search(name):
        return name
    try:
        plain = unquote(name, errors="strict")
    except UnicodeDecodeError:
        return name
    return plain if plain.isprintable() else name


def _unnumbered(names: list[str]) -> list[str]:
    """The names without their leading numbers, if all have a different one, and still differ without it."""
    numbers = {match[1] for match in map(NUMBERED.match, names) if match is not None}
    rest = [NUMBERED.sub("", name, count=1) for name in names]
    is_numbering = len(numbers) == len(names) > 1 and len({text.casefold() for text in rest}) == len(names)
    return rest if is_numbering else names


def _camel_parts(word: str) -> list[str]:
    """The words between capitals: "HTTPServer2" is "HTTP", "Server", "2"."""
    starts = [0, *(place for place in range(1, len(word)) if _starts_word(word, place)), len(word)]
    return [word[start:end] for start, end in itertools.pairwise(starts)]


def _starts_word(word: str, place: int) -> bool:
    before, sign, after = word[place - 1], word[place], word[place + 1 : place + 3]
    if sign.isupper() and before.islower():
        return word[:place] != before and word[:place] != "Mc"  # "iPhone", "McLaren"
    if sign.isupper() and (before.isupper() or before.isdigit()):  # "HTTPServer", but "TVs", "3D", "4WDs"
        return after[:1].islower() and (
            after != "s" if len(after) < 2 else after[0] != "s" or after[1].islower()
        )
    if sign.isdigit() and before.islower():  # "Server2", but "ak47"
        return word[0].isupper()
    return False
