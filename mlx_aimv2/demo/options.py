"""`TourOptions`: the model and the images of the demo."""

from __future__ import annotations

from dataclasses import dataclass

from ..checkpoints.load_options import MODEL_HELP
from ..errors import InputError
from ..options.fields import option
from ..presets import DEMO_MODEL

FEWEST, MOST = 4, 12


@dataclass(frozen=True)
class TourOptions:
    """Options of `take_tour`.

    Attributes:
        model: an image-text pair.

    Raises:
        InputError: the count is out of range.
    """

    model: str = option(DEMO_MODEL, MODEL_HELP, flags=("--model", "-m"))
    count: int = option(MOST, f"Number of images, {FEWEST} to {MOST}.")
    force: bool = option(False, "Write into a folder that is not empty.")

    def __post_init__(self) -> None:
        if not FEWEST <= self.count <= MOST:
            raise InputError(f"the count is {self.count!r}, but has to be from {FEWEST} to {MOST} images")
