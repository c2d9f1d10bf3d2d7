"""Scenes: one kind of thing, or two things in a relation, on a ground."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mlx_aimv2.demo.images import COLORS, LABELS, SHAPES
from mlx_aimv2.errors import InputError

__all__ = ["COLORS", "LABELS", "SHAPES", "Ground", "Scene", "Thing"]

TEXTURES = ("plain", "striped", "dotted", "checkered")
SIZES = ("small", "medium", "large")
COUNTS = (1, 2, 3, 4)
POSITIONS = (  # row by row
    *("top left", "top", "top right"),
    *("left", "centre", "right"),
    *("bottom left", "bottom", "bottom right"),
)
RELATIONS = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}  # and their reverse
GROUND_COLORS = ("white", "grey", "black", "beige", "navy", "mint")
FINISHES = ("even", "fading", "speckled")


@dataclass(frozen=True)
class Thing:
    """A kind of thing, of which a scene shows ``count``.

    Attributes:
        shape: one of ``SHAPES``.
        color: one of ``COLORS``.
        texture: one of ``TEXTURES``.
        size: one of ``SIZES``.
        count: 1 to 4.

    Raises:
        InputError: a value is not one of these.
    """

    shape: str
    color: str
    texture: str = "plain"
    size: str = "medium"
    count: int = 1

    def __post_init__(self) -> None:
        _check("shape", self.shape, SHAPES)
        _check("color", self.color, COLORS)
        _check("texture", self.texture, TEXTURES)
        _check("size", self.size, SIZES)
        _check("count", self.count, COUNTS)

    @property
    def label(self) -> str:
        """Such as `red triangle`: one of ``LABELS``."""
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Ground:
    """The background.

    Attributes:
        color: one of ``GROUND_COLORS``.
        finish: one of ``FINISHES``: even, darker or lighter towards one side, or grainy.

    Raises:
        InputError: a value is not one of these.
    """

    color: str
    finish: str = "even"

    def __post_init__(self) -> None:
        _check("color of the ground", self.color, GROUND_COLORS)
        _check("finish", self.finish, FINISHES)


@dataclass(frozen=True)
class Scene:
    """Everything that a caption can mention.

    Attributes:
        thing: the first kind of thing.
        ground: the background.
        position: one of ``POSITIONS`` for a single thing, else None.
        relation: one of ``RELATIONS``, of the first thing to the other; None without another.
        other: a second single thing; the first has count 1 then.

    Raises:
        InputError: the values do not go together.
    """

    thing: Thing
    ground: Ground
    position: str | None = None
    relation: str | None = None
    other: Thing | None = None

    def __post_init__(self) -> None:
        if (self.other is None) != (self.relation is None):
            raise InputError("a scene has both a relation and another thing, or neither")
        if self.other is not None:
            _check("relation", self.relation, RELATIONS)
        if any(thing.count > 1 for thing in self.things) and self.other is not None:
            raise InputError("a scene with a relation holds one thing of each kind")
        alone = self.other is None and self.thing.count == 1
        if alone != (self.position is not None):
            raise InputError("a scene has a position exactly if it holds a single thing")
        if alone:
            _check("position", self.position, POSITIONS)

    @property
    def things(self) -> tuple[Thing, ...]:
        """The kinds of things, one or two."""
        return (self.thing,) if self.other is None else (self.thing, self.other)

    def reversed(self) -> Scene:
        """The same scene from the view of the other thing; a scene without another is its own reverse."""
        if self.other is None or self.relation is None:
            return self
        return Scene(self.other, self.ground, relation=RELATIONS[self.relation], other=self.thing)


def _check(name: str, value: object, known: Iterable[object]) -> None:
    if value not in known:
        raise InputError(f"the {name} is {value!r}, but has to be one of {', '.join(map(str, known))}")
