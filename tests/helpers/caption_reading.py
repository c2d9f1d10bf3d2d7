"""A parser of full captions, written apart from what makes them."""

from __future__ import annotations

import re

from drawn_world.scenes import Ground, Scene, Thing

NUMBERS = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4}
THING = r"(a|an|two|three|four) (?:(small|large) )?(plain|striped|dotted|checkered) (\w+) (\w+)"
SENTENCE = re.compile(
    rf"{THING}(?: (left of|right of|above|below) {THING})?"
    r"(?: (?:in|at|on) the ([a-z ]+?))? on a (?:(fading|speckled) )?(\w+) background"
)


def singular(noun: str, count: int) -> str:
    if count == 1:
        return noun
    return noun[:-2] if noun.endswith(("sses", "ches")) else noun[:-1]


def read_thing(number: str, size: str | None, texture: str, color: str, noun: str) -> Thing:
    count = NUMBERS[number]
    return Thing(singular(noun, count), color, texture, size or "medium", count)


def read_caption(text: str) -> Scene:
    """The scene of a full caption."""
    match = SENTENCE.fullmatch(text)
    assert match, text
    parts = match.groups()
    other = read_thing(*parts[6:11]) if parts[5] else None
    ground = Ground(parts[13], parts[12] or "even")
    return Scene(read_thing(*parts[:5]), ground, parts[11], parts[5], other)
