"""Images with captions, each from its own seed, so that any one can be drawn without the others."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image

from mlx_aimv2.errors import InputError

from .captions import Said, caption, naming_caption, near_caption, varied_caption
from .colors import any_colors
from .grammar import SORTED_PAIRS, held_out_scene, one_kind_scene, training_scene, zero_shot_scene
from .painting import Conditions, close_up, paint
from .ranges import check_range
from .scenes import Scene

ALONE = 2 / 3  # of the images to show, the share with one kind of thing
TRIES = 20  # per retrieval image, to find a caption that no other has
Dyed = Literal["nothing", "ground", "everything"]


@dataclass(frozen=True)
class Example:
    """An image that is drawn when asked for, and what is said of it.

    Attributes:
        scene: what it shows, but for the colours of what is dyed.
        caption: a sentence about it; in the zero-shot set its label.
        seed: of all that the scene does not say.
        near: whether the image is a close-up of one of the things.
        dyed: what has any colour, with or without a name, which the caption does not tell; nothing from nearby.
    """

    scene: Scene
    caption: str
    seed: str
    near: bool = False
    dyed: Dyed = "nothing"

    def named(self) -> Example:
        """The same image, mostly called by little more than colour and shape where it shows one kind of thing."""
        rng = random.Random(f"{self.seed}/names")
        return replace(self, caption=naming_caption(self.scene, rng, _most_said(self.dyed)))

    def image(self, side: int, conditions: Conditions | None = None) -> Image.Image:
        """The image, ``side`` pixels wide and high, or half of that from nearby; the same at every call.

        Raises:
            InputError: the side is out of range.
        """
        if self.near:
            return close_up(self.scene, side, self.seed, conditions)
        colors = None
        if self.dyed != "nothing":
            colors = any_colors(self.scene, self.seed, keep_things=self.dyed == "ground")
        return paint(self.scene, side, self.seed, conditions, colors)


def _most_said(dyed: Dyed) -> Said:
    """What a caption may tell at most."""
    return Said(color=dyed != "everything", ground=dyed == "nothing")


def training_example(index: int, seed: int = 0, split: str = "train") -> Example:
    """One example without held-out combinations, its caption in any wording and often incomplete.

    Args:
        index: which one; it does not depend on any other.
        seed: of all of them.
        split: examples of another name are others.
    """
    name = f"{seed}/{split}/{index}"
    rng = random.Random(name)
    scene = training_scene(rng)
    return Example(scene, varied_caption(scene, rng), name)


def training_examples(count: int, seed: int = 0, split: str = "train") -> Iterator[Example]:
    """The first ``count`` of ``training_example``.

    Raises:
        InputError: the count is negative.
    """
    check_range("the count", count, 0)
    return (training_example(index, seed, split) for index in range(count))


def dyed_examples(count: int, seed: int = 0) -> list[Example]:
    """Images with a ground of any colour, every second with things of any colour too: shapes to know by themselves.

    Captions tell no such colour. Held-out combinations are left out, and every colour without a name of a thing that
    comes near to that of one: see `dyes`.

    Raises:
        InputError: the count is negative.
    """
    check_range("the count", count, 0)
    return [_dyed_example(index, seed) for index in range(count)]


def _dyed_example(index: int, seed: int) -> Example:
    name = f"{seed}/dyed/{index}"
    dyed: Dyed = "ground" if index % 2 else "everything"
    return Example(training_scene(random.Random(name)), "", name, dyed=dyed).named()


def close_up_examples(count: int, seed: int = 0) -> list[Example]:
    """Things from nearby, without held-out combinations, to begin with.

    Raises:
        InputError: the count is negative.
    """
    check_range("the count", count, 0)
    return [_close_up_example(index, seed) for index in range(count)]


def _close_up_example(index: int, seed: int) -> Example:
    name = f"{seed}/near/{index}"
    rng = random.Random(name)
    scene = one_kind_scene(rng)
    return Example(scene, near_caption(scene, rng), name, near=True)


def zero_shot_examples(count: int, seed: int = 0) -> list[Example]:
    """Images of one kind of thing whose shape and colour training never shows together.

    The caption is the label, one of `scenes.LABELS`; the held-out ones take turns.

    Raises:
        InputError: the count is negative.
    """
    check_range("the count", count, 0)
    return [_zero_shot_example(index, seed) for index in range(count)]


def _zero_shot_example(index: int, seed: int) -> Example:
    name = f"{seed}/zeroshot/{index}"
    scene = zero_shot_scene(SORTED_PAIRS[index % len(SORTED_PAIRS)], random.Random(name))
    return Example(scene, scene.thing.label, name)


def retrieval_examples(count: int, seed: int = 0) -> list[Example]:
    """Images with held-out combinations and their full captions, no two of which tell of the same scene.

    Raises:
        InputError: the count is negative, or larger than there are different scenes to be found.
    """
    check_range("the count", count, 0)
    found: list[Example] = []
    told: set[str] = set()
    for attempt in range(TRIES * count):
        if len(found) == count:
            break
        name = f"{seed}/retrieval/{attempt}"
        scene = held_out_scene(random.Random(name))
        words = caption(scene)
        if words not in told:
            told |= {words, caption(scene.reversed())}
            found.append(Example(scene, words, name))
    if len(found) < count:
        raise InputError(
            f"only {len(found):,} different scenes were found for retrieval, not {count:,}: ask for fewer"
        )
    return found


def shown_examples(count: int, seed: int = 0) -> list[Example]:
    """A mixture to look at: held-out combinations, most of them alone, the others beside something else.

    Every caption is the full one. No shape and colour comes twice before all have come.

    Raises:
        InputError: the count is negative.
    """
    check_range("the count", count, 0)
    rng = random.Random(f"{seed}/shown")
    alone = round(ALONE * count)
    rounds = -(-alone // len(SORTED_PAIRS))
    every = [
        Example(one.scene, caption(one.scene), one.seed)
        for one in zero_shot_examples(rounds * len(SORTED_PAIRS), seed)
    ]
    found = []
    for start in range(0, alone, len(SORTED_PAIRS)):
        several = every[start : start + len(SORTED_PAIRS)]
        found += rng.sample(several, min(len(several), alone - start))
    found += _beside_another(count - alone, seed)
    rng.shuffle(found)
    return found


def _beside_another(count: int, seed: int) -> list[Example]:
    """Images of two kinds of things, the first of a held-out shape and colour."""
    names = (f"{seed}/beside/{attempt}" for attempt in itertools.count())
    scenes = ((name, held_out_scene(random.Random(name))) for name in names)
    found = (Example(scene, caption(scene), name) for name, scene in scenes if scene.other is not None)
    return list(itertools.islice(found, count))
