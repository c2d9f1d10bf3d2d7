"""The table of fine-tuning methods: what each trains, head, default learning rate, and options it does not take."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from ..errors import InputError
from ..options.fields import flag

ADAPTERS = ("rank", "alpha", "dropout", "target_modules")
LAYERS = ("num_layers", "grad_checkpoint", "layer_decay")
TRAINING = (
    "class_weights", "batch_norm", "epochs", "iters", "grad_accumulation_steps", "learning_rate", "head_lr",
    "weight_decay", "optimizer", "schedule", "warmup", "max_grad_norm", "ema", "metric", "patience", "sweep",
    "label_smoothing", "save_every", "resume_adapter_file",
)  # fmt: skip
IMAGES = (
    "random_resized_crop", "flip", "color_jitter", "randaugment", "randaugment_magnitude", "mixup", "cutmix",
    "resize",
)  # fmt: skip
SWEPT = ("head_lr", "weight_decay")  # options that a sweep chooses


@dataclass(frozen=True)
class Method:
    """A fine-tuning method.

    Attributes:
        head: the kind of its head: "linear", "attentive" or "knn".
        adapter: "lora" or "dora" if it adapts the encoder.
        full: whether it trains the encoder itself.
        learning_rate: the default peak.
        least_steps: the least number of steps by default.
        foreign: options that it does not take.
    """

    head: str = "linear"
    adapter: str | None = None
    full: bool = False
    learning_rate: float = 1e-3
    least_steps: int = 0
    foreign: tuple[str, ...] = ()

    @property
    def frozen(self) -> bool:
        """Whether the encoder stays as it is, so that its features are computed only once."""
        return self.adapter is None and not self.full


METHODS = {
    "linear": Method(least_steps=1000, foreign=(*ADAPTERS, *LAYERS, "neighbours")),
    "attentive": Method(
        head="attentive",
        least_steps=300,
        foreign=(*ADAPTERS, *LAYERS, "neighbours", "batch_norm", "pooling"),
    ),
    "knn": Method(head="knn", foreign=(*ADAPTERS, *LAYERS, *TRAINING)),
    "lora": Method(adapter="lora", learning_rate=5e-4, least_steps=200, foreign=("neighbours", "sweep")),
    "dora": Method(adapter="dora", learning_rate=5e-4, least_steps=200, foreign=("neighbours", "sweep")),
    "full": Method(
        full=True, learning_rate=5e-5, least_steps=200, foreign=(*ADAPTERS, "neighbours", "sweep")
    ),
}


def check_method(name: str, changed: Set[str], dtype: str, sweep: bool) -> None:
    """Check that options go with a method.

    Args:
        name: of the method.
        changed: names of the options that differ from their defaults.
        dtype: its value.
        sweep: its value.

    Raises:
        InputError: with the name of the option, and what to do.
    """
    method = METHODS[name]
    if method.frozen and not changed.isdisjoint(IMAGES):
        raise InputError(
            f"{name} computes features once, so images cannot be augmented: leave that out, or use lora, dora or"
            " full"
        )
    for option in method.foreign:
        if option in changed:
            users = ", ".join(user for user, other in METHODS.items() if option not in other.foreign)
            raise InputError(f"{flag(option)} is for {users}, not for {name}: leave it out")
    for option in SWEPT:
        if sweep and option in changed:
            raise InputError(f"{flag(option)}: --sweep chooses that itself: leave one of them out")
    if method.full and dtype not in ("auto", "float32"):
        raise InputError(
            f"--dtype {dtype}: {name} changes weights by less than that can hold: leave it out, or use lora"
        )
    if not method.frozen and dtype == "float16":
        raise InputError("--dtype float16: small gradients become 0 in it: use bfloat16, or leave it out")
