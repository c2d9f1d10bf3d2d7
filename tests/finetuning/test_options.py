"""Options: every refusal, YAML, and what wins."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_aimv2.errors import InputError
from mlx_aimv2.finetuning.classifier_model import adapter_config
from mlx_aimv2.finetuning.config_file import make_options, read_config
from mlx_aimv2.finetuning.options import FinetuneOptions
from mlx_aimv2.finetuning.prepared import batch_options

FULL, PAIRS = {"fine_tune_type": "full"}, {"task": "contrastive"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"fine_tune_type": "qlora"}, "--fine-tune-type 'qlora' is not one of linear, attentive, knn, lora, dora, full"),
    ({"optimizer": "rprop"}, "--optimizer 'rprop' is not one of adamw, adam, sgd, lion, adafactor, muon, rmsprop"),
    ({"schedule": "step"}, "--schedule 'step' is not one of cosine, linear, constant"),
    ({"metric": "top3"}, "--metric 'top3' is not one of top1, macro_f1, loss, map, exact_match"),
    ({"class_weights": "yes"}, "--class-weights 'yes' is not one of none, balanced"),
    ({"pooling": "max"}, "--pooling 'max' is not one of mean, head"),
    ({"dtype": "int8"}, "--dtype 'int8' is not one of auto, float32, float16, bfloat16"),
    *(
        ({name: 0}, f"--{name.replace('_', '-')} must be at least 1, not 0")
        for name in (
            "epochs", "batch_size", "grad_accumulation_steps", "neighbours", "save_every", "iters",
            "num_layers",
        )
    ),
    *(
        ({name: value}, f"--{name.replace('_', '-')} must be at least 0, not {value}")
        for name in (
            "weight_decay", "max_grad_norm", "patience", "mixup", "cutmix",
        )
        for value in (-1, math.nan)
    ),
    *(
        ({name: value}, f"--{name.replace('_', '-')} must be more than 0, not {value}")
        for name in ("learning_rate", "head_lr", "alpha")
        for value in (0.0, -1e-3, math.nan)
    ),
    *(
        ({name: math.inf}, f"--{name.replace('_', '-')} must be a finite number, not inf")
        for name in ("weight_decay", "mixup", "learning_rate", "head_lr", "alpha")
    ),
    *(
        ({name: value}, f"--{name.replace('_', '-')} must be at least 0 and less than 1, not {value}")
        for name in ("dropout", "ema", "label_smoothing", "val_fraction")
        for value in (-0.1, 1.0, math.nan)
    ),
    *(
        ({name: value}, f"--{name.replace('_', '-')} must be between 0 and 1, not {value}")
        for name in ("warmup", "flip", "random_resized_crop")
        for value in (-0.1, 1.1, math.nan)
    ),
    *(
        ({"layer_decay": value}, f"--layer-decay must be more than 0 and at most 1, not {value}")
        for value in (0.0, 1.5, math.nan)
    ),
    *(
        ({name: value}, f"--{name.replace('_', '-')} must be between {least} and {most}, not {value}")
        for name, least, most in (
            ("color_jitter", 0, 10), ("randaugment_magnitude", 0, 30), ("randaugment", 0, 100), ("rank", 1, 2**14),
            ("seed", 0, 2**64 - 1),
        )
        for value in (least - 1, most + 1, math.nan)
    ),
    ({"target_modules": "q,head"}, "--target-modules 'q,head': target module 'head' is not one of q, k, v"),
    ({"target_modules": " , "}, "--target-modules ' , ': target_modules must name at least one of q, k, v"),
    *(
        (
            {"optimizer": name, "weight_decay": 0.1},
            f"--weight-decay 0.1: {name} has none: use adamw, or leave it out",
        )
        for name in ("adam", "rmsprop", "adagrad", "adadelta", "adamax")
    ),
    ({"task": "detect"}, "--task 'detect' is not one of classify, contrastive"),
    ({"vision_tower": "frozen"}, "--task classify has no use for --vision-tower: leave it out"),
    ({"text_tower": "frozen"}, "--task classify has no use for --text-tower: leave it out"),
    ({"metric": "recall@1"}, "--metric 'recall@1' is not one of top1, macro_f1, loss, map, exact_match"),
    *(
        ({**PAIRS, name: value}, f"--task contrastive has no use for --{name.replace('_', '-')}: leave it out")
        for name, value in (
            ("class_weights", "balanced"), ("pooling", "head"), ("batch_norm", True), ("neighbours", 5),
            ("mixup", 0.2), ("cutmix", 1.0), ("label_smoothing", 0.1),
        )
    ),
    ({**PAIRS, "fine_tune_type": "knn"}, "--fine-tune-type 'knn' is not one of lora, dora, full for --task"),
    ({**PAIRS, "metric": "top1"}, "--metric 'top1' is not one of recall@1, recall@5, recall@10, loss"),
    ({**PAIRS, "vision_tower": "loose"}, "--vision-tower 'loose' is not one of frozen, adapted, trained"),
    ({**PAIRS, "text_tower": "x"}, "--text-tower 'x' is not one of frozen, adapted, trained"),
    ({**PAIRS, **FULL, "text_tower": "adapted"}, "--text-tower adapted is for lora and dora, not for full: say"),
    ({**PAIRS, "vision_tower": "frozen", "text_tower": "frozen"}, "with both towers frozen nothing is trained"),
    (
        {**PAIRS, "vision_tower": "trained", "text_tower": "frozen"},
        "lora has no tower to adapt: use --fine-tune-type full",
    ),
    (
        {**PAIRS, "text_tower": "trained", "dtype": "bfloat16"},
        "--dtype bfloat16: a tower that is trained changes by less than that can hold: leave it out",
    ),
    ({**PAIRS, "batch_size": 1}, "--batch-size 1: captions are told apart within a batch, so give at least 2"),
    *(
        (
            {"fine_tune_type": "linear", "sweep": True, name: 0.1},
            f"--{name.replace('_', '-')}: --sweep chooses that itself: leave one of them out",
        )
        for name in ("head_lr", "weight_decay")
    ),
    *(
        ({**given, "dtype": "float16"}, "--dtype float16: small gradients become 0 in it: use bfloat16, or leave it")
        for given in ({}, {"fine_tune_type": "dora"}, PAIRS)
    ),
    ({**FULL, "dtype": "bfloat16"}, "--dtype bfloat16: full changes weights by less than that can hold"),
    *(
        ({"fine_tune_type": method, name: 0.5}, f"{method} computes features once, so images cannot be augmented")
        for method in ("linear", "attentive", "knn")
        for name in ("flip", "random_resized_crop", "color_jitter", "mixup", "cutmix")
    ),
    ({"fine_tune_type": "linear", "randaugment": 2}, "linear computes features once"),
    ({"fine_tune_type": "linear", "resize": "bilinear"}, "linear computes features once"),
    ({"resize": "nearest"}, "--resize 'nearest' is not one of bicubic, bilinear"),
    ({"decode": "fast"}, "--decode 'fast' is not one of exact, native"),
]  # fmt: skip


def test_the_largest_values_are_those_of_what_they_are_for() -> None:
    largest = FinetuneOptions(
        color_jitter=10, randaugment=100, randaugment_magnitude=30, rank=2**14, seed=2**64 - 1
    )
    assert batch_options(largest).augmentation is not None and adapter_config(largest) is not None
    mx.random.seed(largest.seed)
    for name in ("q_proj", "attention.q_proj"):
        config = adapter_config(FinetuneOptions(target_modules=name))
        assert config is not None and config.target_modules == ("q",)


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=lambda x: str(x)[:60])
def test_a_value_that_makes_no_sense_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        FinetuneOptions(**given)
    assert str(caught.value).startswith(message)


def test_a_metric_that_is_not_given_is_the_tasks() -> None:
    assert FinetuneOptions().best_metric == "top1"
    assert FinetuneOptions(task="contrastive").best_metric == "recall@1"
    assert FinetuneOptions(task="contrastive", metric="loss").best_metric == "loss"


def config(folder: Path, text: str) -> dict[str, Any]:
    (folder / "c.yaml").write_text(text, encoding="utf-8")
    return read_config(folder / "c.yaml")


def test_every_field_says_what_it_is_for() -> None:
    for field in dataclasses.fields(FinetuneOptions):
        assert field.metadata["help"].endswith((".", "]")), field.name
        assert field.metadata["panel"] in ("Data", "Method", "Training", "Augmentation", "Run")


def test_patterns_come_from_a_list_or_one_text() -> None:
    assert make_options({"exclude": ["raw", "*_old"]}).exclude == ("raw", "*_old")
    assert make_options({"exclude": "raw"}).exclude == ("raw",)
