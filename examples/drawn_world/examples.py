"""Examples: images with captions, each drawn from its own seed, independent of the others."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image

from mlx_aimv2.errors import InputError

from .captions import Mentions, caption, close_up_caption, naming_caption, varied_caption
from .colors import any_colors
from .grammar import SORTED_PAIRS, held_out_scene, one_kind_scene, training_scene, zero_shot_scene
from .painting import Conditions, close_up, paint
from .ranges import check_range
from .scenes import Scene

ALONE = 2 / 3  # the share of sample images with one kind of thing
TRIES = 20  # per retrieval image, to find a unique caption
Recolored = Literal["nothing", "ground", "everything"]


@dataclass(frozen=True)
class Example:
    """An image, drawn on request, and its caption.

    Attributes:
        scene: the scene; recolored parts have other colours.
        caption: a sentence about the image, or its label in the zero-shot set.
        seed: of everything that the scene does not define.
        is_close_up: whether the image is a close-up of one of the things.
        recolored: the part in random colours, which the caption does not mention; "nothing" for close-ups.
    """

    scene: Scene
    caption: str
    seed: str
    is_close_up: bool = False
    recolored: Recolored = "nothing"

    def named(self) -> Example:
        """The same image; the caption of one kind of thing mentions mostly only colour and shape."""
        rng = random.Random(f"{self.seed}/names")
        return replace(self, caption=naming_caption(self.scene, rng, _allowed_mentions(self.recolored)))

    def image(self, side: int, conditions: Conditions | None = None) -> Image.Image:
        """Draw the image, ``side`` pixels wide and high, or half of that for a close-up; the same at every call.

        Raises:
            InputError: the side is out of range.
        """
        if self.is_close_up:
            return close_up(self.scene, side, self.seed, conditions)
        colors = None
        if self.recolored != "nothing":
            colors = any_colors(self.scene, self.seed, keep_things=self.recolored == "ground")
        return paint(self.scene, side, self.seed, conditions, colors)


def _allowed_mentions(recolored: Recolored) -> Mentions:
    """The attributes that a caption may mention."""
    return Mentions(color=recolored != "everything", ground=recolored == "nothing")


def training_example(index: int, seed: int = 0, split: str = "train") -> Example:
    """One example without held-out combinations, its caption in any wording and often incomplete.

    Args:
        index: number of the example.
        seed: of all examples.
        split: another name gives other examples.
    """
    name = f"{seed}/{split}/{index}"
    rng = random.Random(name)
    scene = training_scene(rng)
    return Example(scene, varied_caption(scene, rng), name)


def training_examples(count: int, seed: int = 0, split: str = "train") -> Iterator[Example]:
    """The first ``count`` training examples.

    Raises:
        InputError: the count is negative.
    """
    check_range("the count", count, 0)
    return (training_example(index, seed, split) for index in range(count))


def recolored_examples(count: int, seed: int = 0) -> list[Example]:
    """Images with a ground in random colours, every second with random things too, to learn shapes by themselves.

    Captions do not mention random colours. Held-out combinations, and random colours of things near to them, do not
    occur: see `any_colors`.

    Raises:
        InputError: the count is negative.
    """
    check_range("the count", count, 0)
    return [_recolored_example(index, seed) for index in range(count)]


def _recolored_example(index: int, seed: int) -> Example:
    name = f"{seed}/dyed/{index}"  # a seed of the trained checkpoint: never change it
    recolored: Recolored = "ground" if index % 2 else "everything"
    return Example(training_scene(random.Random(name)), "", name, recolored=recolored).named()


def close_up_examples(count: int, seed: int = 0) -> list[Example]:
    """Close-ups of things without held-out combinations, for the first stages of training.

    Raises:
        InputError: the count is negative.
    """
    check_range("the count", count, 0)
    return [_close_up_example(index, seed) for index in range(count)]


def _close_up_example(index: int, seed: int) -> Example:
    name = f"{seed}/near/{index}"  # a seed of the trained checkpoint: never change it
    rng = random.Random(name)
    scene = one_kind_scene(rng)
    return Example(scene, close_up_caption(scene, rng), name, is_close_up=True)


def zero_shot_examples(count: int, seed: int = 0) -> list[Example]:
    """Images of one kind of thing with a held-out pair of shape and colour.

    The caption is the label, one of `LABELS`; the held-out labels take turns.

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
    """Images of different scenes with held-out combinations, with their full captions.

    Raises:
        InputError: the count is negative, or larger than the number of different scenes.
    """
    check_range("the count", count, 0)
    examples: list[Example] = []
    captions: set[str] = set()
    for attempt in range(TRIES * count):
        if len(examples) == count:
            break
        name = f"{seed}/retrieval/{attempt}"
        scene = held_out_scene(random.Random(name))
        words = caption(scene)
        if words not in captions:
            captions |= {words, caption(scene.reversed())}
            examples.append(Example(scene, words, name))
    if len(examples) < count:
        raise InputError(
            f"only {len(examples):,} different scenes were found for retrieval, not {count:,}: ask for fewer"
        )
    return examples


def sample_examples(count: int, seed: int = 0) -> list[Example]:
    """A mixture of held-out combinations with full captions: two thirds with one kind of thing, others with two.

    No pair of shape and colour comes twice before all have come.

    Raises:
        InputError: the count is negative.
    """
    check_range("the count", count, 0)
    rng = random.Random(f"{seed}/shown")  # the seed of the sample images in the package
    alone = round(ALONE * count)
    rounds = -(-alone // len(SORTED_PAIRS))
    every = [
        Example(example.scene, caption(example.scene), example.seed)
        for example in zero_shot_examples(rounds * len(SORTED_PAIRS), seed)
    ]
    examples = []
    for start in range(0, alone, len(SORTED_PAIRS)):
        several = every[start : start + len(SORTED_PAIRS)]
        examples += rng.sample(several, min(len(several), alone - start))
    examples += _beside_another(count - alone, seed)
    rng.shuffle(examples)
    return examples


def _beside_another(count: int, seed: int) -> list[Example]:
    """Images of two kinds of things, the first of a held-out shape and colour."""
    names = (f"{seed}/beside/{attempt}" for attempt in itertools.count())
    scenes = ((name, held_out_scene(random.Random(name))) for name in names)
    examples = (Example(scene, caption(scene), name) for name, scene in scenes if scene.other is not None)
    return list(itertools.islice(examples, count))
