"""What a shell is offered for a value that is begun, as it asks for it."""

from __future__ import annotations

import re

import pytest
import typer.main

from mlx_aimv2.cli import completion
from mlx_aimv2.cli.app import NAME, app
from mlx_aimv2.finetuning.config_file import make_options
from mlx_aimv2.inference import pooling
from mlx_aimv2.inference import zero_shot as zeroshot
from mlx_aimv2.presets import PRESETS
from mlx_aimv2.quantization.recipes import RECIPES
from mlx_aimv2.quantization.scheme import VALID


@pytest.fixture
def offered(capsys, monkeypatch):
    """Gives what bash is offered for the last word of a line."""

    def offer(line, shell="bash"):
        words = f"{NAME} {line}"
        monkeypatch.setenv("_MLX_AIMV2_COMPLETE", f"complete_{shell}")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - (not words.endswith(" "))))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", words)
        with pytest.raises(SystemExit):
            app(args=[], prog_name=NAME)
        return [line for line in capsys.readouterr().out.splitlines() if line]

    return offer


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("embed a.jpg --model lar", [preset.name for preset in PRESETS if preset.name.startswith("large")]),
        ("embed a.jpg -m 3B-4", ["3B-448"]),
        ("info nat", ["native"]),
        ("convert --hf-path de", ["demo"]),
        ("finetune --model li", ["lit"]),
        ("evaluate --data x -m apple/aimv2-hu", [f"apple/aimv2-huge-patch14-{side}" for side in (224, 336, 448)]),
        ("export timm-huge-4", ["timm-huge-448"]),
        ("fuse --model lit", ["lit"]),
        ("embed a.jpg --pooling m", ["mean", "max"]),
        ("embed a.jpg --decode ", ["fast", "exact", "native"]),
        ("embed a.jpg --dtype f", ["float32", "float16"]),
        ("embed a.jpg --device ", ["cpu", "gpu"]),
        ("embed a.jpg --background d", ["drop"]),
        ("classify a.jpg --score c", ["cosine"]),
        ("evaluate --split t", ["test", "train"]),
        ("compare li", ["lit"]),
        ("compare lit nati", ["native"]),
        ("convert --q-mode mx", ["mxfp4", "mxfp8"]),
        ("convert --quant-predicate mixed_3", ["mixed_3_4", "mixed_3_6"]),
        ("convert --q-bits ", ["2", "3", "4", "5", "6", "8"]),
        ("convert --q-group-size 6", ["64"]),
        ("convert --format ", ["safetensors", "npz"]),
        ("convert --dtype b", ["bfloat16"]),
        ("export lit out --format app", ["apple", "apple-mlx"]),
        ("finetune --fine-tune-type l", ["linear", "lora"]),
        ("finetune --task con", ["contrastive"]),
        ("finetune --pooling ", ["mean", "head"]),
        ("finetune --vision-tower ad", ["adapted"]),
        ("finetune --optimizer adam", ["adamw", "adam", "adamax"]),
        ("finetune --schedule co", ["cosine", "constant"]),
        ("finetune --class-weights b", ["balanced"]),
        ("finetune --metric ma", ["macro_f1", "map"]),
        ("finetune --device g", ["gpu"]),
        ("embed a.jpg --revision x", []),
    ],
)  # fmt: skip
def test_values_of_options(offered, tmp_path, monkeypatch, line, values):
    monkeypatch.chdir(tmp_path)
    assert offered(line) == values


def test_folders_are_offered_beside_names(offered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("lite", "lists", "other", ".hidden", "lite/deep", "odd 'name'"):
        (tmp_path / name).mkdir()
    (tmp_path / "lite" / "config.json").touch()
    (tmp_path / "light.txt").touch()
    assert offered("embed a.jpg --model li") == ["lit", "lists/", "lite"]
    assert offered("embed a.jpg --model lite/") == ["lite/deep/"]
    assert offered("embed a.jpg --model ./l") == ["./lists/", "./lite"]
    assert offered(f"embed a.jpg --model {tmp_path}/o") == [f"{tmp_path}/odd 'name'/", f"{tmp_path}/other/"]
    assert offered("embed a.jpg --model /no/such/") == []
    assert ".hidden/" not in offered("embed a.jpg --model ")
    assert offered("embed a.jpg --model .h") == [".hidden/"]


def test_another_shell_is_offered_the_same(offered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = re.findall(r'"([^"]*)"', " ".join(offered("embed a.jpg --pooling m", shell="zsh")))
    assert found == ["mean", "max"]


def test_nothing_that_computes_is_loaded(cli):
    asked = {
        "COMP_WORDS": f"{NAME} embed --pooling t",
        "COMP_CWORD": "3",
        "_MLX_AIMV2_COMPLETE": "complete_bash",
    }
    done = cli(PYTHONPROFILEIMPORTTIME="1", **asked)
    assert done.stdout.split() == ["tokens"]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "mlx_aimv2.cli.completion" in loaded
    assert not loaded & {"mlx.core", "numpy", "PIL.Image", "huggingface_hub", "tokenizers", "rich.console"}


def test_choices_are_those_of_the_modules_that_know_them():
    assert completion.POOLINGS == pooling.CHOICES
    assert completion.SCORES == zeroshot.SCORES
    groups, bits = VALID["affine"]
    assert tuple(VALID) == completion.Q_MODES
    assert tuple(map(str, (16, *groups))) == completion.Q_GROUP_SIZES
    assert tuple(map(str, bits)) == completion.Q_BITS
    assert tuple(RECIPES) == completion.RECIPES


@pytest.mark.parametrize("name", ["task", "fine_tune_type", "class_weights", "optimizer", "schedule"])
def test_choices_of_finetune_are_valid(offered, name):
    values = offered(f"finetune --{name.replace('_', '-')} ")
    assert len(values) > 1
    for value in values:
        assert getattr(make_options({"data": "x", name: value}), name) == value


def test_every_option_that_lists_its_choices_offers_them(offered):
    """In the help of an option, choices are words with commas between them."""
    known = {value for name in dir(completion) if isinstance(value := getattr(completion, name), tuple)}
    words = {word for choice in known for word in choice}
    command = typer.main.get_command(app)
    for verb, its in command.commands.items():
        for option in its.params:
            first = re.match(r"([\w-]+)(,| or|:)", option.help or "") if hasattr(option, "help") else None
            if first and first[1] in words and option.opts[0].startswith("--"):
                assert first[1] in offered(f"{verb} {option.opts[0]} {first[1]}"), (verb, option.opts)
