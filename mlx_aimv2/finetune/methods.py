"""The ways to fine-tune, as a table: what is trained, what the head looks like, how fast."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One way to fine-tune.

    Attributes:
        head: the kind of its head: "linear", "attentive" or "knn".
        adapter: "lora" or "dora" where the encoder is adapted.
        full: whether the encoder itself is trained.
        learning_rate: a peak that works for most data.
    """

    head: str = "linear"
    adapter: str | None = None
    full: bool = False
    learning_rate: float = 1e-3

    @property
    def frozen(self) -> bool:
        """Whether the encoder stays as it is, so that its features need to be computed only once."""
        return self.adapter is None and not self.full


METHODS = {
    "linear": Method(),
    "attentive": Method(head="attentive"),
    "knn": Method(head="knn"),
    "lora": Method(adapter="lora", learning_rate=5e-4),
    "dora": Method(adapter="dora", learning_rate=5e-4),
    "full": Method(full=True, learning_rate=5e-5),
}
