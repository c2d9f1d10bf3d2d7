"""Errors as one line, with advice in the terms of its reader."""

import pytest

from mlx_aimv2.cli.guard import RUNNING, report
from mlx_aimv2.errors import Advice, InputError


@pytest.mark.parametrize(
    ("advice", "python", "with_option", "without"),
    [
        (Advice("name one with {}", "weights", otherwise="keep 1"), "name one with weights",
         "name one with --weights", "keep 1"),
        (Advice("use {}", "dtype", "bfloat16"), "use dtype='bfloat16'", "use --dtype bfloat16", ""),
        (Advice("replace it with {}", "force", True), "replace it with force=True", "replace it with --force", ""),
        (Advice("add {}", "none", "something else"), "add none='something else'", "add --none 'something else'", ""),
    ],
)  # fmt: skip
def test_advice_is_in_the_terms_of_its_reader(capsys, monkeypatch, advice, python, with_option, without):
    error = InputError("it is wrong", advice)
    assert str(error) == f"it is wrong: {python}"
    for options, expected in (({advice.option}, with_option), (set(), without)):
        monkeypatch.setattr(RUNNING, "options", frozenset(options))
        assert report(error) == 2
        message = f"it is wrong: {expected}" if expected else "it is wrong"
        assert capsys.readouterr().err == f"mlx-aimv2: error: {message}\n"
