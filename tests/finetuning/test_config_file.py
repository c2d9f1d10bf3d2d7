"""Options of a training from a YAML file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mlx_aimv2.errors import InputError
from mlx_aimv2.finetuning.config_file import make_options, read_config
from mlx_aimv2.finetuning.options import FinetuneOptions


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
