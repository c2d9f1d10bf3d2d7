"""The help of every verb, in wide and narrow terminals."""

import re

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from mlx_aimv2.cli.app import app

VERBS = get_command(app).commands


def help_text(monkeypatch, columns, *arguments):
    monkeypatch.setenv("COLUMNS", str(columns))
    done = CliRunner().invoke(app, [*arguments, "--help"])
    assert done.exit_code == 0
    return done.output


@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.parametrize("verb", VERBS)
def test_every_name_is_whole_and_every_line_fits(monkeypatch, verb, columns):
    output = help_text(monkeypatch, columns, verb)
    lines = output.splitlines()
    assert max(map(len, lines)) <= max(columns, 42)  # `--grad-checkpoint / --no-grad-checkpoint`
    assert not re.search(r"<\w+>|…|\\\[", output)
    for parameter in VERBS[verb].params:
        for name in (*parameter.opts, *parameter.secondary_opts):
            if name.startswith("-"):
                assert re.search(rf"(^|[ ,]){name}($|[ ,])", output, re.MULTILINE), name


def test_the_verbs_are_listed_with_whole_sentences(monkeypatch):
    output = " ".join(help_text(monkeypatch, 60).split())
    for name, command in VERBS.items():
        assert f" {name} {' '.join(command.help.split(chr(10) * 2)[0].split())} " in output


def test_usage_names_the_arguments(monkeypatch):
    usage = help_text(monkeypatch, 80, "fuse").splitlines()[0]
    assert usage.endswith(" fuse [OPTIONS]")
    assert help_text(monkeypatch, 80, "upload").splitlines()[0].endswith(" upload [OPTIONS] PATH REPO")
    assert help_text(monkeypatch, 80, "demo").splitlines()[0].endswith(" demo [OPTIONS] [OUTPUT]")
