"""Every verb with a bar or a table where stderr is a terminal: what comes out of stdout, and what is to be seen."""

import io
import json
import os
import re
import warnings

import pytest
from helpers.terminal import Drawn, Terminal, run_verb, start

from mlx_aimv2.cli.live_bar import LIVE
from mlx_aimv2.cli.output import put, show_warning
from mlx_aimv2.cli.screen import screen
from mlx_aimv2.cli.tables import table
from mlx_aimv2.events import Notice, Progress, Skipped

COLUMNS = (40, 80, 120)
REDIRECTED = ("file", "pipe")
TABLES = {  # by a name: a verb, and what stands in its first column
    "models": (["models"], ["demo", "large-224", "native", "lit"]),
    "info": (["info", "PAIR"], ["checkpoint", "parameters", "problem"]),
    "system": (["info", "--system"], ["mlx-aimv2", "BLAS", "matrix product"]),
    "evaluate": (
        ["evaluate", "--data", "SHADES", "--model", "PAIR"],
        ["top-1", "bright", "dark", "grey_ish"],
    ),
    "probe": (
        ["evaluate", "--data", "SHADES", "--model", "PAIR", "--adapter-path", "PROBE"],
        ["top-1", "bright", "dark", "grey_ish"],
    ),
    "compare": (["compare", "PAIR", "PAIR", "PHOTOS"], ["layout", "image cosine, least"]),
    "plan": (
        ["convert", "--model", "PAIR", "--mlx-path", "out", "--dry-run"],
        ["logit_scale"],
    ),
    "dry-run": (
        ["finetune", "--data", "SHADES", "--model", "PAIR", "--dry-run"],
        ["trained", "steps", "memory"],
    ),
    "demo": (
        ["demo", "DEMO", "--model", "PAIR", "--count", "4", "--force"],
        ["image", "sentence"],
    ),
}
JSON = {
    "embed": ["embed", "PHOTOS", "--model", "PAIR", "--json"],
    "classify": ["classify", "PHOTOS", "-l", "cat,dog", "--model", "PAIR", "--json"],
    "models": ["models", "--json"],
    "info": ["info", "PAIR", "--json"],
    "evaluate": ["evaluate", "--data", "SHADES", "--model", "PAIR", "--json"],
    "compare": ["compare", "PAIR", "PAIR", "PHOTOS", "--json"],
    "plan": ["convert", "--model", "PAIR", "--mlx-path", "out", "--dry-run", "--json"],
    "dry-run": ["finetune", "--data", "SHADES", "--model", "PAIR", "--dry-run", "--json"],
    "demo": ["demo", "DEMO", "--model", "PAIR", "--count", "4", "--force", "--json"],
}


def squeezed(text):
    """Without white space, which is where a terminal folds, and without what lines of talk begin with."""
    return "".join(text.split())


@pytest.fixture
def on_terminal(monkeypatch, tmp_path, pair, photos, shades, probe):
    """Runs a verb with a terminal as stderr."""
    monkeypatch.chdir(tmp_path)
    names = {"PAIR": pair, "PHOTOS": photos, "SHADES": shades, "PROBE": probe, "DEMO": tmp_path / "demo"}

    def run(arguments, stdout="terminal", columns=80):
        return run_verb(monkeypatch, [names.get(name, name) for name in arguments], stdout, columns)

    return run


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("stdout", REDIRECTED)
def test_json_lines_of_vectors_arrive(on_terminal, photos, stdout, columns):
    seen = on_terminal(["embed", "PHOTOS", "--model", "PAIR"], stdout, columns)
    assert seen.status == 0
    entries = [json.loads(line) for line in seen.stdout.splitlines()]
    assert [entry["path"] for entry in entries] == [str(photos / f"{k}.png") for k in range(3)]
    assert all(len(entry["embedding"]) == 32 for entry in entries)
    assert "3/3" in seen.terminal.raw.decode() and "embedding" not in seen.terminal.text
    assert squeezed(seen.terminal.text).startswith("mlx-aimv2:embedded3of3images")
    assert seen.terminal.shows_cursor


@pytest.mark.parametrize("stdout", REDIRECTED)
def test_predictions_arrive(on_terminal, photos, stdout):
    seen = on_terminal(["classify", "PHOTOS", "-l", "cat,dog", "--model", "PAIR"], stdout)
    rows = [line.split("\t") for line in seen.stdout.splitlines()]
    assert [row[0] for row in rows if row[0].endswith(".png")] == [
        str(photos / f"{k // 2}.png") for k in range(6)
    ]
    assert "cat" not in seen.terminal.text
    assert squeezed(seen.terminal.text).startswith("mlx-aimv2:classified3of3images")


@pytest.mark.parametrize("stdout", REDIRECTED)
@pytest.mark.parametrize("name", TABLES)
def test_tables_arrive(on_terminal, name, stdout):
    arguments, first = TABLES[name]
    seen = on_terminal(arguments, stdout)
    assert seen.status == 0, seen.terminal.text
    rows = [line.split("\t") for line in seen.stdout.splitlines()]
    for cell in first:
        assert any(row[0].endswith(cell) for row in rows), cell
    assert "\x1b" not in seen.stdout and "─" not in seen.terminal.text
    assert not any("\t" in line for line in seen.terminal.lines)
    assert seen.terminal.shows_cursor


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("name", TABLES)
def test_tables_on_the_terminal(on_terminal, name, columns):
    arguments, first = TABLES[name]
    seen = on_terminal(arguments, columns=columns)
    assert seen.status == 0, seen.terminal.text
    shown = squeezed(seen.terminal.text)
    for cell in first:
        assert all(word in shown for word in cell.split()), cell
    assert "/3 " not in seen.terminal.text and "━" not in seen.terminal.text  # no bar is left
    assert all(line.startswith("mlx-aimv2: ") for line in seen.terminal.lines if "mlx-aimv2: " in line)
    assert seen.terminal.shows_cursor


@pytest.mark.parametrize("stdout", [*REDIRECTED, "terminal"])
@pytest.mark.parametrize("name", JSON)
def test_json_arrives_whole(on_terminal, name, stdout):
    seen = on_terminal(JSON[name], stdout, columns=2000)
    assert seen.status == 0, seen.terminal.text
    text = seen.stdout
    if stdout == "terminal":
        text = "\n".join(line for line in seen.terminal.lines if not line.strip().startswith("mlx-aimv2"))
    if name == "embed":
        assert [set(json.loads(line)) for line in text.splitlines()] == [{"path", "embedding"}] * 3
    else:
        assert json.loads(text)


def test_rows_and_skipped_images_stand_above_the_bar(on_terminal, photos, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"nonsense")
    arguments = ["classify", "PHOTOS", tmp_path / "broken.png", "-l", "cat,dog", "--model", "PAIR"]
    seen = on_terminal(arguments, columns=120)
    assert seen.status == 1
    heads = [line for line in seen.terminal.lines if not line.startswith(" ")]
    assert heads[:3] == [str(photos / f"{k}.png") for k in range(3)]
    assert heads[3].startswith(f"mlx-aimv2: skipped {tmp_path / 'broken.png'}: ")
    assert any(head.startswith("mlx-aimv2: classified 3 of 4 images in ") for head in heads[4:])
    assert "4/4" in seen.terminal.raw.decode()


def test_the_table_of_vectors_keeps_the_names(on_terminal):
    for columns in COLUMNS:
        seen = on_terminal(["embed", "PHOTOS", "--model", "PAIR"], columns=columns)
        rows = [line.split() for line in seen.terminal.lines if "0.png" in line or "2.png" in line]
        assert [row[0][-5:] for row in rows] == ["0.png", "2.png"]
        assert all(row[1] == "32" for row in rows)


@pytest.mark.parametrize("verb", ["convert", "export", "finetune"])
def test_bars_of_what_writes_are_gone_in_the_end(on_terminal, tmp_path, verb):
    arguments = {
        "convert": ["convert", "--model", "PAIR", "--mlx-path", tmp_path / "out"],
        "export": ["export", "PAIR", tmp_path / "out"],
        "finetune": ["finetune", "--data", "SHADES", "--model", "PAIR", "--adapter-path", tmp_path / "out"],
    }[verb]
    more = ["--fine-tune-type", "linear", "--epochs", "2"] if verb == "finetune" else []
    seen = on_terminal([*arguments, *more])
    assert seen.status == 0 and (tmp_path / "out").is_dir()
    assert re.search(r"\d/\d", seen.terminal.raw.decode())
    assert "━" not in seen.terminal.text and seen.terminal.shows_cursor
    assert f"mlx-aimv2:wrote{squeezed(str(tmp_path / 'out'))}" in squeezed(seen.terminal.text)


def test_all_that_is_said_while_a_bar_is_drawn_stands_in_lines_of_its_own(monkeypatch):
    drawn = Drawn(monkeypatch)
    monkeypatch.setattr(warnings, "showwarning", show_warning)
    with screen() as shown, warnings.catch_warnings():
        warnings.simplefilter("always")
        shown(Progress("embedded", 1, 3))
        LIVE.bars.refresh()
        put('{"path": "[bold]a.png[/bold]"}')
        LIVE.bars.refresh()
        warnings.warn("odd file", UserWarning, stacklevel=1)
        shown(Skipped("b.png", "b.png: broken"))
        LIVE.bars.refresh()
        shown(Notice("by the way"))
        shown(Progress("embedded", 3, 3))
        LIVE.bars.refresh()
        table(("what", "value"), [("a", "1")])
        shown(Notice("after"))
    assert drawn.close() == [
        '{"path": "[bold]a.png[/bold]"}',
        "mlx-aimv2: warning: odd file",
        "mlx-aimv2: skipped b.png: b.png: broken".replace("b.png: b.png", "b.png"),
        "mlx-aimv2: by the way",
        "what  value",
        "─" * 11,
        "a         1",
        "",
        "mlx-aimv2: after",
    ]


def test_a_line_of_talk_is_written_in_one_piece(monkeypatch):
    written = []

    class Pieces(io.StringIO):
        def write(self, text):
            written.append(text)
            return len(text)

    monkeypatch.setattr("sys.stderr", Pieces())
    show_warning("one thread of several")
    assert written == ["mlx-aimv2: warning: one thread of several\n"]


def test_another_terminal_as_stdout_gets_the_rows_alone(monkeypatch):
    drawn, other = Drawn(monkeypatch), Terminal()
    with other.open() as out, screen() as shown:
        monkeypatch.setattr("sys.stdout", out)
        shown(Progress("embedded", 1, 3))
        LIVE.bars.refresh()
        put('{"path": "a.png"}')
        shown(Notice("by the way"))
    other.close()
    assert other.lines == ['{"path": "a.png"}'] and "\x1b" not in other.raw.decode()
    assert drawn.close() == ["mlx-aimv2: by the way"]


def test_rows_that_a_pipe_brings_to_the_terminal_stand_in_lines_of_their_own(monkeypatch):
    monkeypatch.setattr("rich.live._RefreshThread.run", lambda self: None)  # drawn where the test says so
    drawn = Drawn(monkeypatch)
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe, screen() as shown:
        monkeypatch.setattr("sys.stdout", pipe)
        for number in range(3):
            shown(Progress("classified", number, 3))
            LIVE.bars.refresh()
            put(f"{number}.png\tcat\t0.5")
            os.write(drawn.terminal.descriptor, os.read(reading, 1000))  # as `| cat` does
    os.close(reading)
    assert [line.split() for line in drawn.close()] == [[f"{k}.png", "cat", "0.5"] for k in range(3)]


@pytest.mark.parametrize("ending", ["", "--json"])
def test_a_process_on_a_terminal_writes_into_a_file(pair, photos, tmp_path, ending):
    terminal = Terminal(60)  # its size is asked of the terminal itself
    with (tmp_path / "o.jsonl").open("wb") as file:
        arguments = ["embed", photos, "--model", pair, *filter(None, [ending])]
        with start(arguments, terminal, stdout=file) as process:
            assert process.wait(120) == 0
    terminal.close()
    lines = (tmp_path / "o.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == [str(photos / f"{k}.png") for k in range(3)]
    assert "embedded 3 of 3 images" in terminal.raw.decode() and "3/3" in terminal.raw.decode()


@pytest.mark.parametrize("columns", COLUMNS)
def test_labels_are_drawn_within_the_terminal_after_a_bar_over_them(on_terminal, photos, columns):
    arguments = ("-l", "n01=a dog,n02=a cat", "--template", "{}", "--model", "PAIR")
    seen = on_terminal(["classify", photos / "0.png", *arguments], columns=columns)
    shown = seen.terminal.raw.decode()
    assert seen.status == 0 and "labels" in shown and "2/2" in shown and "labels" not in seen.terminal.text
    first, second = [line for line in seen.terminal.text.splitlines() if line.strip()][-2:]
    assert {line.split("%")[0][:14] for line in (first, second)} == {"  n01 (a dog) ", "  n02 (a cat) "}
    bar = first.partition("%")[2].strip()
    assert set(bar) == {"█"} and len(bar) >= (5 if columns < 80 else 12)
