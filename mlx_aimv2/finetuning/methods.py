"""The ways to fine-tune, as a table: what is trained, what the head looks like, how fast, and what goes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from .options import FinetuneOptions

ADAPTERS = ("rank", "alpha", "dropout", "target_modules")
LAYERS = ("num_layers", "grad_checkpoint", "layer_decay")
TRAINING = (
    "class_weights", "batch_norm", "epochs", "iters", "grad_accumulation_steps", "learning_rate", "head_lr",
    "weight_decay", "optimizer", "schedule", "warmup", "max_grad_norm", "ema", "metric", "patience", "sweep",
    "label_smoothing", "save_every", "resume_adapter_file",
)  # fmt: skip
IMAGES = (
    "random_resized_crop", "flip", "color_jitter", "randaugment", "randaugment_magnitude", "mixup", "cutmix",
)  # fmt: skip
SWEPT = ("head_lr", "weight_decay")  # what a sweep would cancel, or tries itself


@dataclass(frozen=True)
class Method:
    """One way to fine-tune.

    Attributes:
        head: the kind of its head: "linear", "attentive" or "knn".
        adapter: "lora" or "dora" where the encoder is adapted.
        full: whether the encoder itself is trained.
        learning_rate: a peak that works for most data.
        least_steps: that it needs to learn something, by default.
        foreign: options that it has no use for.
    """

    head: str = "linear"
    adapter: str | None = None
    full: bool = False
    learning_rate: float = 1e-3
    least_steps: int = 0
    foreign: tuple[str, ...] = ()

    @property
    def frozen(self) -> bool:
        """Whether the encoder stays as it is, so that its features need to be computed only once."""
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


def check_method(options: FinetuneOptions) -> None:
    """Refuse options that do not go with the method.

    Raises:
        InputError: with the name of the option, and what to do.
    """
    name, given = options.fine_tune_type, options.given()
    method = METHODS[name]
    if method.frozen and any(option in given for option in IMAGES):
        raise InputError(
            f"{name} computes features once, so images cannot be augmented: leave that out, or use lora, dora or"
            " full"
        )
    for option in method.foreign:
        if option in given:
            users = ", ".join(one for one, other in METHODS.items() if option not in other.foreign)
            raise InputError(f"--{option.replace('_', '-')} is for {users}, not for {name}: leave it out")
    for option in SWEPT:
        if options.sweep and option in given:
            raise InputError(
                f"--{option.replace('_', '-')}: --sweep chooses that itself: leave one of them out"
            )
    if method.full and options.dtype not in ("auto", "float32"):
        raise InputError(
            f"--dtype {options.dtype}: {name} changes weights by less than that can hold: leave it out, or use lora"
        )
    if not method.frozen and options.dtype == "float16":
        raise InputError("--dtype float16: small gradients become 0 in it: use bfloat16, or leave it out")
