"""Sentences about a scene: the full one that identifies it, and the many ways to say less or the same."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from .scenes import Ground, Scene, Thing

NUMBERS = {2: "two", 3: "three", 4: "four"}
PLACES = {
    "top": "at the top",
    "bottom": "at the bottom",
    "left": "on the left",
    "right": "on the right",
}  # the others are `in the` and their name
ALTERNATIVES = (  # other words for the same
    ("small", "little"),
    ("large", "big"),
    ("dotted", "spotted"),
    ("checkered", "chequered"),
    ("fading", "graded"),
    ("speckled", "grainy"),
    ("in the centre", "in the middle"),
    ("left of", "to the left of"),
    ("right of", "to the right of"),
    ("below", "under"),
)
AN = ("arrow", "hourglass")  # the words that take `an`
OTHER_WORDS = 0.2  # the share of words with an alternative that are replaced, in a reworded caption
SHORT, PARTIAL = 0.35, 0.3  # the shares of captions that say only what there is, and that leave something out
NAMED = 2 / 3  # the share of captions to end with, of one kind of thing, that say only what there is


@dataclass(frozen=True)
class Said:
    """Which attributes a caption tells.

    Attributes:
        size: of the things, unless it is medium, which goes without saying.
        texture: of the things.
        color: of the things.
        count: the number, where there are several.
        place: the position, where there is a single thing.
        ground: colour and finish of the ground.
    """

    size: bool = True
    texture: bool = True
    color: bool = True
    count: bool = True
    place: bool = True
    ground: bool = True


FULL = Said()
NAMES = Said(size=False, texture=False, count=False, place=False, ground=False)
SHAPES_ALONE = replace(NAMES, color=False)


def caption(scene: Scene) -> str:
    """The one sentence that tells all of a scene.

    Such as `a small striped red triangle left of a large plain blue circle on a grey background`. Two scenes have
    the same caption only if they are equal.
    """
    return " ".join(_parts(scene, FULL))


def varied_caption(scene: Scene, rng: random.Random) -> str:
    """A true sentence about a scene, which often leaves attributes out and often says it in other words."""
    chance = rng.random()
    if chance < SHORT:
        return _short(scene, rng)
    said = FULL
    if chance < SHORT + PARTIAL:
        said = _some(rng)
    if rng.random() < 0.5:
        return " ".join(_parts(scene, said))
    return _reworded(scene, said, rng)


def near_caption(scene: Scene, rng: random.Random) -> str:
    """A true sentence about a close-up of one of the things of a scene with one kind."""
    alone = Scene(replace(scene.thing, count=1), scene.ground, position="centre")  # any: it is not told
    if rng.random() < SHORT:
        return _short(alone, rng)
    return " ".join(_parts(alone, replace(_some(rng), place=False)))


def naming_caption(scene: Scene, rng: random.Random, most: Said = FULL) -> str:
    """Mostly little more than colour and shape where there is one kind of thing, otherwise all there is to say.

    Args:
        scene: what it is about.
        rng: what chooses.
        most: what it may tell at most.
    """
    if scene.other is None and rng.random() < NAMED:
        return _short(scene, rng, most)
    return " ".join(_parts(scene, most))


def _some(rng: random.Random) -> Said:
    """Some of the attributes, each as likely as not."""
    return Said(*(rng.random() < 0.5 for _ in vars(FULL)))


def words_of_things(thing: Thing, said: Said = FULL) -> str:
    """Such as `a small striped red triangle` or `three plain green stars`."""
    told = (
        thing.size if said.size and thing.size != "medium" else "",
        thing.texture if said.texture else "",
        thing.color if said.color else "",
        thing.shape if thing.count == 1 else _plural(thing.shape),
    )
    words = " ".join(word for word in told if word)
    if thing.count > 1:
        return f"{NUMBERS[thing.count]} {words}" if said.count else words
    return f"an {words}" if words.startswith(AN) else f"a {words}"


def _plural(shape: str) -> str:
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def _background(ground: Ground) -> str:
    finish = "" if ground.finish == "even" else f"{ground.finish} "
    return f"{finish}{ground.color} background"


def _place(position: str) -> str:
    return PLACES.get(position, f"in the {position}")


def _parts(scene: Scene, said: Said) -> list[str]:
    """The things, and where they are and on what as far as that is said."""
    parts = [words_of_things(scene.thing, said)]
    if scene.other is not None and scene.relation is not None:
        parts += [scene.relation, words_of_things(scene.other, said)]
    if scene.position is not None and said.place:
        parts.append(_place(scene.position))
    if said.ground:
        parts.append(f"on a {_background(scene.ground)}")
    return parts


def _short(scene: Scene, rng: random.Random, most: Said = FULL) -> str:
    """Colours and shapes, and at most the number; for a single kind of thing often its bare label or shape."""
    names = replace(NAMES, color=most.color)
    if scene.other is not None:
        phrases = [words_of_things(thing, names) for thing in scene.things]
        rng.shuffle(phrases)
        return " and ".join(phrases) if rng.random() < 0.7 else phrases[0]
    named = [scene.thing.label, words_of_things(scene.thing, NAMES)] if most.color else [scene.thing.shape]
    forms = [*named, words_of_things(scene.thing, SHAPES_ALONE)]
    if scene.thing.count > 1 and most.count:
        forms += [words_of_things(scene.thing, replace(names, count=True))]
    return rng.choice(forms)


def _reworded(scene: Scene, said: Said, rng: random.Random) -> str:
    """The same in another order and with other words."""
    scene = rng.choice((scene, scene.reversed()))
    *parts, last = _parts(scene, said)
    ground = _background(scene.ground)
    text = " ".join([*parts, last])
    if said.ground:
        things = " ".join(parts)
        text = rng.choice((text, f"on a {ground}, {things}", f"a {ground} with {things}"))
    for usual, other in ALTERNATIVES:
        if rng.random() < OTHER_WORDS:
            text = text.replace(usual, other)
    return text
