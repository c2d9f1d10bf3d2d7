"""Lines of talk: whole in a pipe, wrapped at words on a terminal."""

import pytest
from helpers.terminal import Terminal
from PIL import Image

from mlx_aimv2.cli.output import advise, say, show_warning

MESSAGE = (
    "wrote /a/folder/with/a/long/name/adapters; see `mlx-aimv2 info --system` for more of it;"
    " try: mlx-aimv2 info '/a/folder/with a name'"
)


@pytest.fixture
def seen(monkeypatch):
    """What is to be seen of talk on a terminal that knows its own width."""

    def run(columns, talk, *arguments):
        terminal = Terminal(columns)
        with monkeypatch.context() as patch, terminal.open() as err:
            patch.delenv("COLUMNS", raising=False)
            patch.setattr("sys.stderr", err)
            talk(*arguments)
        terminal.close()
        return terminal

    return run


@pytest.mark.parametrize("columns", [48, 60, 80, 120])
def test_talk_wraps_at_words_and_keeps_paths_and_commands_whole(seen, columns):
    lines = seen(columns, say, MESSAGE).lines
    assert all(len(line) <= columns for line in lines)
    assert " ".join(line.strip() for line in lines) == f"mlx-aimv2: {MESSAGE}"
    for whole in ("/a/folder/with/a/long/name/adapters;", "`mlx-aimv2 info --system`", MESSAGE[-42:].strip()):
        assert any(whole in line for line in lines), whole


def test_in_a_pipe_it_is_one_line(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    say(MESSAGE)
    assert capsys.readouterr().err == f"mlx-aimv2: {MESSAGE}\n"


def test_commands_are_whole_lines(seen, capsys):
    command = f"classify photo.jpg --model '{'long ' * 20}' --adapter-path adapters"
    terminal = seen(60, advise, "try:", "info demo", command)
    assert terminal.raw.decode().split("\r\n")[:3] == [
        "mlx-aimv2: try:",
        "  mlx-aimv2 info demo",
        f"  mlx-aimv2 {command}",
    ]


def test_a_path_longer_than_the_terminal_is_not_broken(seen):
    path = "/a" * 60
    assert path in seen(40, say, f"wrote {path}").raw.decode()


def test_control_characters_of_names_are_escaped(seen):
    assert seen(80, say, "skipped a\x1b[31m\x1f\tb.png").lines == [
        "mlx-aimv2: skipped a\\x1b[31m\\x1f\\tb.png"
    ]


def test_warnings_are_lines_but_for_those_of_pillow_which_name_no_image(capsys):
    show_warning(UserWarning("no fast\nBLAS"), UserWarning, "a.py", 1)
    show_warning(Image.DecompressionBombWarning("big"), UserWarning, Image.__file__, 1)
    show_warning(UserWarning("Tag data larger than file. Skipping tag 1"), UserWarning, Image.__file__, 1)
    assert capsys.readouterr().err == "mlx-aimv2: warning: no fast BLAS\n"
