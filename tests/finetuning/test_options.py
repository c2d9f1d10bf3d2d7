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
from mlx_aimv2.finetuning.methods import METHODS
from mlx_aimv2.finetuning.options import FinetuneOptions
from mlx_aimv2.finetuning.prepared import batch_options
from mlx_aimv2.training.options import OPTIMIZERS

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
]  # fmt: skip


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
        ("learning-rat: 1e-5", r"c\.yaml: there is no option 'learning_rat': did you mean learning_rate\?"),
        ("1: 2", r"c\.yaml: there is no option '1': see `mlx-aimv2 finetune --help`"),
        ("learning_rate: fast", "--learning-rate must be a number, not 'fast'"),
        ("learning_rate: true", "--learning-rate must be a number, not True"),
        ("epochs: 2.5", "--epochs must be a whole number, not 2.5"),
        ("epochs: yes", "--epochs must be a whole number, not True"),
        ("epochs: .inf", "--epochs must be a whole number, not inf"),
        ("epochs: [1]", r"--epochs must be a whole number, not \[1\]"),
        ("rank: null", "--rank must be a whole number, not None"),
        ("sweep: 1", "--sweep must be true or false, not 1"),
        ("model: {a: b}", "--model must be a text, not {'a': 'b'}"),
        ("model: true", "--model must be a text, not True"),
        ("epochs: 1\nflip: 0\nepochs: 5", r"c\.yaml holds epochs twice: leave one of them out"),
        ("batch-size: 1\nbatch_size: 1", r"c\.yaml holds batch_size twice: leave one of them out"),
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
    with pytest.raises(
        InputError, match=r"b, line 1, byte offset 2: not UTF-16, as its first bytes say: save it"
    ):
        read_config(tmp_path / "b")
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbfepochs: 3\r\n")
    assert read_config(tmp_path / "marked") == {"epochs": 3}
    (tmp_path / "large").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(InputError, match="large is too large for a configuration"):
        read_config(tmp_path / "large")


def test_every_field_says_what_it_is_for() -> None:
    for field in dataclasses.fields(FinetuneOptions):
        assert field.metadata["help"].endswith((".", "]")), field.name
        assert field.metadata["panel"] in ("Data", "Method", "Training", "Augmentation", "Run")


def test_patterns_come_from_a_list_or_one_text() -> None:
    assert make_options({"exclude": ["raw", "*_old"]}).exclude == ("raw", "*_old")
    assert make_options({"exclude": "raw"}).exclude == ("raw",)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weight_decay_is_a_hundredth_where_an_optimizer_has_one(optimizer: str) -> None:
    without = optimizer in ("adam", "rmsprop", "adagrad", "adadelta", "adamax")
    assert FinetuneOptions(optimizer=optimizer).decay == (0.0 if without else 0.01)
    assert FinetuneOptions(optimizer=optimizer, weight_decay=0.0).decay == 0.0
    if not without:
        assert FinetuneOptions(optimizer=optimizer, weight_decay=0.3).decay == 0.3
