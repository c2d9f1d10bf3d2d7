"""Methods of fine-tuning: what each leaves to its options, and what it refuses."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from mlx_aimv2.errors import InputError
from mlx_aimv2.finetuning.methods import METHODS
from mlx_aimv2.finetuning.options import FinetuneOptions

FOREIGN = {  # what each method has no use for, but images that are changed
    "linear": "rank alpha dropout target_modules num_layers grad_checkpoint layer_decay neighbours",
    "attentive": "rank alpha dropout target_modules num_layers grad_checkpoint layer_decay neighbours batch_norm"
    " pooling",
    "knn": "rank alpha dropout target_modules num_layers grad_checkpoint layer_decay class_weights batch_norm epochs"
    " iters grad_accumulation_steps learning_rate head_lr weight_decay optimizer schedule warmup max_grad_norm ema"
    " metric patience sweep label_smoothing save_every",
    "lora": "neighbours sweep",
    "dora": "neighbours sweep",
    "full": "rank alpha dropout target_modules neighbours sweep",
}


OTHERS: dict[str, Any] = {
    "target_modules": "q", "num_layers": 1, "grad_checkpoint": True, "batch_norm": True, "pooling": "head",
    "class_weights": "balanced", "optimizer": "lion", "schedule": "linear", "metric": "loss", "sweep": True,
    "iters": 7, "rank": 3, "neighbours": 3, "epochs": 3, "grad_accumulation_steps": 3, "patience": 3,
    "save_every": 3,
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_has_no_use_for_is_refused(method: str) -> None:
    for name in FOREIGN[method].split():
        with pytest.raises(InputError) as caught:
            FinetuneOptions(fine_tune_type=method, **{name: OTHERS.get(name, 0.25)})
        message = str(caught.value)
        assert message.startswith(f"--{name.replace('_', '-')} is for ")
        assert message.endswith(f", not for {method}: leave it out")
        users = message.split(" is for ")[1].split(", not for ")[0].split(", ")
        assert users == [other for other in METHODS if name not in FOREIGN[other].split()]


def test_everything_else_goes_with_a_method() -> None:
    for method in METHODS:
        for field in dataclasses.fields(FinetuneOptions):
            if field.name in OTHERS and field.name not in FOREIGN[method].split():
                FinetuneOptions(fine_tune_type=method, **{field.name: OTHERS[field.name]})
    for method in ("linear", "attentive", "knn"):
        assert FinetuneOptions(fine_tune_type=method, dtype="float16").dtype == "float16"


def test_a_learning_rate_that_is_not_given_is_the_methods() -> None:
    for name, method in METHODS.items():
        assert FinetuneOptions(fine_tune_type=name).peak_learning_rate == method.learning_rate
    assert FinetuneOptions(learning_rate=0.5).peak_learning_rate == 0.5
