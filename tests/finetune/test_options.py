"""Options: every refusal, YAML, and what wins."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from mlx_aimv2.errors import InputError
from mlx_aimv2.finetune.methods import METHODS
from mlx_aimv2.finetune.options import FinetuneOptions, make_options, read_config

FULL, PAIRS = {"fine_tune_type": "full"}, {"task": "contrastive"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"fine_tune_type": "qlora"}, "--fine-tune-type 'qlora' is not one of linear, attentive, knn, lora, dora, full"),
    ({"optimizer": "adamax"}, "--optimizer 'adamax' is not one of adamw, adam, sgd, lion, adafactor, muon"),
    ({"schedule": "step"}, "--schedule 'step' is not one of cosine, linear, constant"),
    ({"metric": "top3"}, "--metric 'top3' is not one of top1, macro_f1, loss, map"),
    ({"class_weights": "yes"}, "--class-weights 'yes' is not one of none, balanced"),
    ({"pooling": "max"}, "--pooling 'max' is not one of mean, head"),
    ({"dtype": "int8"}, "--dtype 'int8' is not one of auto, float32, bfloat16, float16"),
    *(
        ({name: 0}, f"--{name.replace('_', '-')} must be at least 1, not 0")
        for name in (
            "epochs", "batch_size", "grad_accumulation_steps", "rank", "neighbours", "save_every", "iters",
            "num_layers",
        )
    ),
    *(
        ({name: value}, f"--{name.replace('_', '-')} must be at least 0, not {value}")
        for name in (
            "weight_decay", "max_grad_norm", "patience", "seed", "mixup", "cutmix", "color_jitter", "randaugment",
            "randaugment_magnitude",
        )
        for value in (-1, math.nan, math.inf)
    ),
    *(
        ({name: value}, f"--{name.replace('_', '-')} must be more than 0, not {value}")
        for name in ("learning_rate", "head_lr")
        for value in (0.0, -1e-3, math.nan, math.inf)
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
    ({"optimizer": "adam", "weight_decay": 0.1}, "--weight-decay 0.1: adam has none: use adamw, or leave it out"),
    ({"task": "detect"}, "--task 'detect' is not one of classify, contrastive"),
    ({"vision_tower": "frozen"}, "--task classify has no use for --vision-tower: leave it out"),
    ({"text_tower": "frozen"}, "--task classify has no use for --text-tower: leave it out"),
    ({"metric": "recall@1"}, "--metric 'recall@1' is not one of top1, macro_f1, loss, map"),
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
    ({"sweep": True}, "--sweep is for linear and attentive, not for lora"),
    ({"sweep": True, "fine_tune_type": "knn"}, "--sweep is for linear and attentive, not for knn"),
    ({**FULL, "dtype": "bfloat16"}, "--dtype bfloat16: full changes weights by less than that can hold"),
    *(
        ({"fine_tune_type": method, name: 0.5}, f"{method} computes features once, so pictures cannot be augmented")
        for method in ("linear", "attentive", "knn")
        for name in ("flip", "random_resized_crop", "color_jitter", "mixup", "cutmix")
    ),
    ({"fine_tune_type": "linear", "randaugment": 2}, "linear computes features once"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=lambda x: str(x)[:60])
def test_a_value_that_makes_no_sense_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        FinetuneOptions(**given)
    assert str(caught.value).startswith(message)


def test_a_learning_rate_that_is_not_given_is_the_methods() -> None:
    for name, method in METHODS.items():
        assert FinetuneOptions(fine_tune_type=name).peak_learning_rate == method.learning_rate
    assert FinetuneOptions(learning_rate=0.5).peak_learning_rate == 0.5


def test_a_metric_that_is_not_given_is_the_tasks() -> None:
    assert FinetuneOptions().best_metric == "top1"
    assert FinetuneOptions(task="contrastive").best_metric == "recall@1"
    assert FinetuneOptions(task="contrastive", metric="loss").best_metric == "loss"


def config(folder: Path, text: str) -> dict[str, Any]:
    (folder / "c.yaml").write_text(text, encoding="utf-8")
    return read_config(folder / "c.yaml")


def test_a_yaml_file_gives_numbers_as_numbers(tmp_path: Path) -> None:
    text = "learning_rate: 1e-5\nbatch-size: 8\nweight_decay: 0\niters: 1e3\nresume: true\nnum_layers: null\n"
    text += "target_modules: [q, v]\nmodel: 123\nema: .99\n"
    options = make_options(config(tmp_path, text))
    assert (options.learning_rate, options.batch_size, options.iters, options.ema) == (1e-5, 8, 1000, 0.99)
    assert isinstance(options.learning_rate, float) and type(options.iters) is int
    assert options.weight_decay == 0.0 and isinstance(options.weight_decay, float)
    assert (options.resume, options.num_layers, options.target_modules) == (True, None, "q,v")
    assert options.model == "123"


def test_the_command_line_wins(tmp_path: Path) -> None:
    told = {"learning_rate": 3e-4}
    options = make_options({**config(tmp_path, "learning_rate: 1e-5\nepochs: 3\n"), **told})
    assert (options.learning_rate, options.epochs) == (3e-4, 3)


def test_every_field_comes_back_from_yaml(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    whole = dataclasses.asdict(FinetuneOptions(data="d", learning_rate=1e-5, iters=7, head_lr=1e-3))
    assert dataclasses.asdict(make_options(config(tmp_path, yaml.safe_dump(whole)))) == whole


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning-rat: 1e-5", "there is no option 'learning_rat': see `mlx-aimv2 finetune --help`"),
        ("1: 2", "there is no option '1'"),
        ("learning_rate: fast", "--learning-rate must be a number, not 'fast'"),
        ("learning_rate: true", "--learning-rate must be a number, not True"),
        ("epochs: 2.5", "--epochs must be a whole number, not 2.5"),
        ("epochs: yes", "--epochs must be a whole number, not True"),
        ("epochs: .inf", "--epochs must be a whole number, not inf"),
        ("epochs: [1]", r"--epochs must be a whole number, not \[1\]"),
        ("epochs: null", "--epochs must be a whole number, not None"),
        ("sweep: 1", "--sweep must be true or false, not 1"),
        ("model: {a: b}", "--model must be a text, not {'a': 'b'}"),
        ("model: true", "--model must be a text, not True"),
        ("- a\n- b", "must hold options, such as `learning_rate: 1e-5`, one in a line"),
        ("", "must hold options"),
        ("a: [", "is not valid YAML: "),
        ("a: 2026-13-45", "is not valid YAML: "),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML: "),
    ],
)
def test_a_mistake_in_yaml_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_options(config(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.yaml cannot be read: No such file"):
        read_config(tmp_path / "no.yaml")
    (tmp_path / "b").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="b cannot be read: "):
        read_config(tmp_path / "b")
    (tmp_path / "large").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(InputError, match="large is too large for a configuration"):
        read_config(tmp_path / "large")


def test_every_field_says_what_it_is_for() -> None:
    for field in dataclasses.fields(FinetuneOptions):
        assert field.metadata["help"].endswith((".", "]")), field.name
        assert field.metadata["panel"] in ("Data", "Method", "Training", "Augmentation", "Run")
