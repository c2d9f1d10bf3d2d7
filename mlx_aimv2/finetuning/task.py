"""What differs between tasks, behind one interface: the loop and what surrounds it know nothing else of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..adapters.attach import AdapterConfig
from ..events import OnEvent
from ..loading import AnyModel
from ..training.loop import Loop, Trained
from .options import FinetuneOptions
from .prepared import Prepared


class Numbers(Protocol):
    """The measures of an evaluation."""

    def rows(self) -> list[tuple[str, str]]:
        """A table: what, and how much."""


class Measured(Protocol):
    """An evaluation."""

    @property
    def metrics(self) -> Numbers:
        """The numbers."""

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""

    def charts(self) -> dict[str, bytes]:
        """The PNG files of a report, by name."""


class Work(Protocol):
    """One task. What `read` and `build` give is in the run that the other methods are given."""

    def read(self, options: FinetuneOptions) -> Any:
        """The dataset.

        Raises:
            InputError: there is none, or it does not go with the options.
        """

    def record(self, dataset: Any) -> Mapping[str, Any]:
        """Which image is in which split, as plain values."""

    def build(
        self, model: AnyModel, dataset: Any, adapter: AdapterConfig | None, options: FinetuneOptions
    ) -> Any:
        """What is trained: a module with the encoder, or the pair, as its `trunk`.

        Raises:
            InputError: the method cannot train this model.
        """

    def loop(self, run: Prepared[Any, Any], on_event: OnEvent) -> Loop:
        """The training, ready to start."""

    def train(self, run: Prepared[Any, Any], on_event: OnEvent) -> tuple[Trained | None, int]:
        """Train, and leave the best in the run's model: how it went, and how many numbers were trained."""

    def evaluate(self, run: Prepared[Any, Any], split: str, on_event: OnEvent) -> Measured:
        """How good the model is on a split."""
