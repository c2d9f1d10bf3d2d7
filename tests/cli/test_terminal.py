"""Every verb with a bar or a table where stderr is a terminal: what comes out of stdout, and what is to be seen."""

import json

import pytest
from terminal import run_verb

COLUMNS = (40, 80, 120)


def squeezed(text):
    """Without white space, which is where a terminal folds."""
    return "".join(text.split())


@pytest.fixture
def on_terminal(monkeypatch):
    """Runs a verb with a terminal as stderr."""

    def run(*arguments, stdout="terminal", columns=80):
        return run_verb(monkeypatch, arguments, stdout, columns)

    return run


@pytest.fixture(scope="session")
def lines(cli):
    """What a verb prints into a pipe without any terminal."""
    known = {}

    def run(*arguments):
        if arguments not in known:
            done = cli(*arguments)
            assert done.returncode == 0, done.stderr
            known[arguments] = done.stdout
        return known[arguments]

    return run


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("stdout", ["file", "pipe"])
def test_json_lines_of_vectors_arrive(on_terminal, pair, photos, stdout, columns):
    seen = on_terminal("embed", photos, "--model", pair, stdout=stdout, columns=columns)
    assert seen.status == 0
    entries = [json.loads(line) for line in seen.stdout.splitlines()]
    assert [entry["path"] for entry in entries] == [str(photos / f"{k}.png") for k in range(3)]
    assert all(len(entry["embedding"]) == 32 for entry in entries)
    assert "3/3" in seen.terminal.raw.decode() and "embedding" not in seen.terminal.text
    assert squeezed(seen.terminal.text).startswith("mlx-aimv2:embedded3of3")


@pytest.mark.parametrize("columns", COLUMNS)
def test_labels_are_drawn_within_the_terminal_after_a_bar_over_them(on_terminal, pair, photos, columns):
    arguments = ("-l", "n01=a dog,n02=a cat", "--template", "{}", "--model", pair)
    seen = on_terminal("classify", photos / "0.png", *arguments, columns=columns)
    shown = seen.terminal.raw.decode()
    assert seen.status == 0 and "labels" in shown and "2/2" in shown and "labels" not in seen.terminal.text
    first, second = [line for line in seen.terminal.text.splitlines() if line.strip()][-2:]
    assert {line.split("%")[0][:14] for line in (first, second)} == {"  n01 (a dog) ", "  n02 (a cat) "}
    bar = first.partition("%")[2].strip()
    assert set(bar) == {"█"} and len(bar) >= (5 if columns < 80 else 12)
