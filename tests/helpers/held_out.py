"""What is held out, as tests ask for it."""

from __future__ import annotations

from drawn_world.combinations import HELD_OUT_PAIRS, is_held_out
from drawn_world.scenes import Scene

HELD_OUT_LABELS = tuple(f"{color} {shape}" for shape, color in sorted(HELD_OUT_PAIRS))


def is_for_training(scene: Scene) -> bool:
    """Whether a scene shows no held-out combination."""
    return not any(map(is_held_out, scene.things))
