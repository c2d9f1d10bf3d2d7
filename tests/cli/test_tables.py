"""Tables as a terminal of some width shows them, and as a pipe gets them."""

import pytest
from helpers.terminal import Terminal
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mlx_aimv2.cli.tables import shortened_path, table

PHOTOS = [f"/home/somebody/Images/2024/summer/{name}" for name in ("astronaut.png", "cat.jpg", "x.jpg")]


@pytest.fixture
def drawn_lines(monkeypatch):
    """Gives the lines of a table on a terminal of some columns."""

    def show(columns, *arguments, **options):
        terminal = Terminal(columns)
        with monkeypatch.context() as patch, terminal.open() as out:
            patch.setenv("COLUMNS", str(columns))
            patch.setenv("TERM", "xterm-256color")
            patch.setattr("sys.stdout", out)
            table(*arguments, **options)
        terminal.close()
        return terminal.lines

    return show


def test_numbers_stand_right_and_are_whole(drawn_lines):
    rows = [("large", "309 M", "86.6", "1.36 GB"), ("a", "1235 M", "", "97 MB"), ("b", "6 M", "7", "5.4 GB")]
    lines = drawn_lines(80, ("name", "params", "top-1", "float16"), rows)
    assert lines == [
        "name   params  top-1  float16",
        "─" * 29,
        "large   309 M   86.6  1.36 GB",
        "a      1235 M           97 MB",
        "b         6 M      7   5.4 GB",
    ]


@pytest.mark.parametrize("columns", [36, 40, 60, 80])
def test_names_of_files_stay_when_paths_are_shortened(drawn_lines, columns):
    rows = [(path, "192", "+0.1234  +0.5678  +0.1234  +0.5678  …") for path in PHOTOS]
    lines = drawn_lines(columns, ("path", "shape", "embedding"), rows, cut=True, paths=("path",))
    assert len(lines) == 2 + len(rows) and all(len(line) <= columns for line in lines)
    for path, line in zip(PHOTOS, lines[2:], strict=True):
        assert path.rpartition("/")[2] in line and " 192 " in line


def test_long_texts_wrap_at_words(drawn_lines):
    rows = [("folder", "a photo of a dog on a beach in the sunshine, seen from the side")]
    lines = drawn_lines(40, ("what", "value"), rows)
    words = " ".join(line[8:] for line in lines[2:])
    assert " ".join(words.split()) == rows[0][1]
    assert all(len(line) <= 40 for line in lines)


def test_too_narrow_for_a_table_every_row_is_a_paragraph(drawn_lines):
    headers = ("image", "truth", "prediction", "confidence")
    rows = [(PHOTOS[0], "animals", "other_things", "99.95%"), (PHOTOS[1], "a dog, a cat", "", "7.10%")]
    assert drawn_lines(30, headers, rows, paths=("image",)) == [
        "…/2024/summer/astronaut.png",
        "  truth animals",
        "  prediction other_things",
        "  confidence 99.95%",
        "…/Images/2024/summer/cat.jpg",
        "  truth a dog, a cat",
        "  confidence 7.10%",
    ]


def test_a_pipe_gets_every_cell_whole(capsys):
    table(("path", "value"), [(PHOTOS[0], "a\tb"), ("c\\d", "e")], cut=True, paths=("path",))
    assert capsys.readouterr().out == f"path\tvalue\n{PHOTOS[0]}\ta\\tb\nc\\\\d\te\n"


@given(st.text(st.characters(exclude_categories=("C", "Z", "M")), max_size=60), st.integers(8, 60))
def test_shortened_paths_fit(path, width):
    short = shortened_path(path, width)
    assert cell_len(short) <= width
    if cell_len(path) <= width:
        assert short == path
    else:
        assert "…" in short


@pytest.mark.parametrize(
    ("path", "width", "short"),
    [
        ("photos/astronaut.png", 20, "photos/astronaut.png"),
        ("/a/long/way/photos/astronaut.png", 24, "…/photos/astronaut.png"),
        ("/a/long/way/photos/astronaut.png", 16, "…/astronaut.png"),
        ("a-very-long-name-of-a-file-0001.png", 20, "a-very-lon…-0001.png"),
        ("写真/とても長い名前です.png", 18, "とても長…です.png"),
    ],
)
def test_shortened_paths_keep_their_end(path, width, short):
    assert shortened_path(path, width) == short
