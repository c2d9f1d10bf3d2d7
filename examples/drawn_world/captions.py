"""Captions of a scene: the full caption, and many that are shorter or worded differently."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from .scenes import Ground, Scene, Thing

NUMBERS = {2: "two", 3: "three", 4: "four"}
PLACES = {"top": "at the top", "bottom": "at the bottom", "left": "on the left", "right": "on the right"}
ALTERNATIVES = (  # synonyms
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
AN = ("arrow", "hourglass")  # words with the article `an`
OTHER_WORDS = 0.2  # the share of words that a reworded caption replaces by a synonym
SHORT, PARTIAL = 0.35, 0.3  # the shares of captions with only colour and shape, and without some attributes
NAMED = 2 / 3  # the share of names among the captions of one kind of thing


@dataclass(frozen=True)
class Mentions:
    """The attributes that a caption mentions.

    Attributes:
        size: of the things; never mentioned if it is medium.
        texture: of the things.
        color: of the things.
        count: the number, if there are several.
        place: the position of a single thing.
        ground: colour and finish of the ground.
    """

    size: bool = True
    texture: bool = True
    color: bool = True
    count: bool = True
    place: bool = True
    ground: bool = True


FULL = Mentions()
NAMES = Mentions(size=False, texture=False, count=False, place=False, ground=False)
SHAPES_ALONE = replace(NAMES, color=False)


def caption(scene: Scene) -> str:
    """The caption that describes a scene completely.

    Such as `a small striped red triangle left of a large plain blue circle on a grey background`. Two scenes have
    the same caption only if they are equal.
    """
    return " ".join(_parts(scene, FULL))


def varied_caption(scene: Scene, rng: random.Random) -> str:
    """A true caption that often leaves attributes out and often has other words."""
    chance = rng.random()
    if chance < SHORT:
        return _short(scene, rng)
    mentions = FULL
    if chance < SHORT + PARTIAL:
        mentions = _some(rng)
    if rng.random() < 0.5:
        return " ".join(_parts(scene, mentions))
    return _reworded(scene, mentions, rng)


def close_up_caption(scene: Scene, rng: random.Random) -> str:
    """A true caption of a close-up of one of the things of a scene with one kind."""
    alone = Scene(
        replace(scene.thing, count=1), scene.ground, position="centre"
    )  # the position is not mentioned
    if rng.random() < SHORT:
        return _short(alone, rng)
    return " ".join(_parts(alone, replace(_some(rng), place=False)))


def naming_caption(scene: Scene, rng: random.Random, most: Mentions = FULL) -> str:
    """Mostly only colour and shape for one kind of thing, otherwise the full caption.

    Args:
        scene: the scene.
        rng: makes the choices.
        most: the attributes that the caption may mention.
    """
    if scene.other is None and rng.random() < NAMED:
        return _short(scene, rng, most)
    return " ".join(_parts(scene, most))


def _some(rng: random.Random) -> Mentions:
    """Random attributes, each with probability 1/2."""
    return Mentions(*(rng.random() < 0.5 for _ in vars(FULL)))


def words_of_things(thing: Thing, mentions: Mentions = FULL) -> str:
    """Such as `a small striped red triangle` or `three plain green stars`."""
    words = (
        thing.size if mentions.size and thing.size != "medium" else "",
        thing.texture if mentions.texture else "",
        thing.color if mentions.color else "",
        thing.shape if thing.count == 1 else _plural(thing.shape),
    )
    phrase = " ".join(word for word in words if word)
    if thing.count > 1:
        return f"{NUMBERS[thing.count]} {phrase}" if mentions.count else phrase
    return f"an {phrase}" if phrase.startswith(AN) else f"a {phrase}"


def _plural(shape: str) -> str:
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def _background(ground: Ground) -> str:
    finish = "" if ground.finish == "even" else f"{ground.finish} "
    return f"{finish}{ground.color} background"


def _place(position: str) -> str:
    return PLACES.get(position, f"in the {position}")


def _parts(scene: Scene, mentions: Mentions) -> list[str]:
    """The phrases of the things, their place and the ground, as far as they are mentioned."""
    parts = [words_of_things(scene.thing, mentions)]
    if scene.other is not None and scene.relation is not None:
        parts += [scene.relation, words_of_things(scene.other, mentions)]
    if scene.position is not None and mentions.place:
        parts.append(_place(scene.position))
    if mentions.ground:
        parts.append(f"on a {_background(scene.ground)}")
    return parts


def _short(scene: Scene, rng: random.Random, most: Mentions = FULL) -> str:
    """Colours and shapes, and at most the number; for one kind of thing often only its label or shape."""
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


def _reworded(scene: Scene, mentions: Mentions, rng: random.Random) -> str:
    """The caption in another order and with synonyms."""
    scene = rng.choice((scene, scene.reversed()))
    *parts, last = _parts(scene, mentions)
    ground = _background(scene.ground)
    text = " ".join([*parts, last])
    if mentions.ground:
        things = " ".join(parts)
        text = rng.choice((text, f"on a {ground}, {things}", f"a {ground} with {things}"))
    for usual, other in ALTERNATIVES:
        if rng.random() < OTHER_WORDS:
            text = text.replace(usual, other)
    return text
