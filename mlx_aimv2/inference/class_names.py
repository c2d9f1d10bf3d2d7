"""Words for zero-shot prompts from the names of classes, such as those of folders."""

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
ALWAYS_NUMBERING = re.compile(
    r"^(?:0\d*[\s._-]+|\d+\.\s*)(?=[^\W\d_])"
)  # whatever the other classes are called
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
    """What the classes called so are called in a prompt.

    A name with spaces is a text already, and stays but for its underscores. Elsewhere separators become spaces,
    "BlackRing" two words, and escapes of addresses ("black%20ring") what they stand for; ids of WordNet and the
    numbering of folders ("n01855672-duck", "001.Black_footed_Albatross") go.

    Args:
        names: of all classes, which decide together whether a number in front is a numbering or a part of the name.

    Raises:
        InputError: two names are the same words.
    """
    texts = [label_text(name) for name in _unnumbered([_unescaped(name) for name in names])]
    for text, (one, other, *_) in _same(zip(names, texts, strict=True)).items():
        raise InputError(
            f"the classes {one!r} and {other!r} are both {text!r} in a prompt: tell them apart with"
            f" --labels '{one}=a name,{other}=another'"
        )
    return texts


def label_text(name: str) -> str:
    """What a class is called in a prompt, if its name is looked at by itself."""
    name = _unescaped(name)
    if IDS.fullmatch(name.strip()):
        return name.strip()
    bare = ALWAYS_NUMBERING.sub("", AROUND_WORDNET.sub("", name), count=1)
    has_spaces = any(sign.isspace() for sign in bare.strip())
    words = bare.replace("_", " ").split() if has_spaces else _words(bare)
    return " ".join(words) or name.strip()


def reading_notices(names: Sequence[str], texts: Sequence[str]) -> list[Notice]:
    """A notice of names that were read as other words; none where only underscores became spaces.

    Args:
        names: of classes.
        texts: what `label_texts` made of them.
    """
    read = [
        f"{name!r} as {text!r}"
        for name, text in zip(names, texts, strict=True)
        if text != " ".join(name.replace("_", " ").split())
    ]
    more = f", and {len(read) - FEW:,} more" if len(read) > FEW else ""
    return [Notice(f"names are read as words: {', '.join(read[:FEW])}{more}")] if read else []


def same_notices(texts: Mapping[str, str]) -> list[Notice]:
    """A notice of labels that are the same words in a prompt; none where there are no such.

    Args:
        texts: what each label is called in a prompt, by its name.
    """
    same = _same(texts.items())
    if not same:
        return []
    shown = "; ".join(f"{', '.join(map(repr, names))}: {text!r}" for text, names in list(same.items())[:FEW])
    more = f"; and {len(same) - FEW:,} more" if len(same) > FEW else ""
    return [Notice(f"labels that are the same words, of which the first is always chosen: {shown}{more}")]


def _same(texts: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The names of labels with the same words; the tokenizer makes all letters small, and spaces one."""
    by_words: dict[str, list[str]] = {}
    for name, text in texts:
        by_words.setdefault(" ".join(text.lower().split()), []).append(name)
    return {words: names for words, names in by_words.items() if len(names) > 1}


def looks_like_id(name: str) -> bool:
    """Whether a name says nothing to a model, such as "n01855672", "7", "class_3" or a hash."""
    return any(IDS.fullmatch(form) for form in (name.strip(), label_text(name)))


def id_notices(texts: Iterable[str]) -> list[Notice]:
    """A notice of prompt texts that look like ids; none where there are no such."""
    every = list(texts)
    ids = [text for text in every if looks_like_id(text)]
    if not ids:
        return []
    what = "looks like an id" if len(ids) == 1 else "look like ids"
    return [
        Notice(
            f"{len(ids)} of {len(every)} labels {what}, which say nothing to a model: {quoted(ids)}; say what they"
            f" mean with --labels FILE, each line an id, a tab and a name, or --labels '{ids[0]}=a name'"
        )
    ]


def _unescaped(name: str) -> str:
    """A name with the escapes of addresses resolved, where they are that."""
    if not ESCAPE.search(name):
        return name
    try:
        plain = unquote(name, errors="strict")
    except UnicodeDecodeError:
        return name
    return plain if plain.isprintable() else name


def _unnumbered(names: list[str]) -> list[str]:
    """The names without the numbers in front, if all have one, and are as different without."""
    found = [NUMBERED.match(name) for name in names]
    numbers = {each[1] for each in found if each is not None}
    rest = [NUMBERED.sub("", name, count=1) for name in names]
    is_numbering = len(numbers) == len(names) > 1 and len({text.casefold() for text in rest}) == len(names)
    return rest if is_numbering else names


def _words(name: str) -> list[str]:
    return [part for word in SEPARATORS.sub(" ", name).split() for part in _camel_parts(word)]


def _camel_parts(word: str) -> list[str]:
    """The words that capitals begin: "HTTPServer2" is "HTTP", "Server", "2"."""
    starts = [0, *(place for place in range(1, len(word)) if _begins(word, place)), len(word)]
    return [word[start:end] for start, end in itertools.pairwise(starts)]


def _begins(word: str, place: int) -> bool:
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
