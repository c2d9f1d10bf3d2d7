"""Every command and every Python block of the README and the documentation runs, and shown output is right.

Small checkpoints stand in for the published ones: they lie in folders of the same names, which this package prefers.
What cannot run here has `<!-- parsed only: REASON -->` above its fence; its options are parsed.
"""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import warnings
from collections import Counter

import av
import pyarrow
import pytest
import typer.main
from helpers.documentation import INLINE, PAGES, ROOT, blocks, commands
from helpers.terminal import Terminal
from PIL import Image
from pyarrow import parquet

from mlx_aimv2 import __version__
from mlx_aimv2.cli.app import app, run
from mlx_aimv2.presets import DEFAULT_MODEL

PARSED_ONLY = {
    "uploads to the Hub": 1,
    "needs a published size": 1,
    "takes a minute": 1,
    "needs a web server": 1,
}  # the reasons, and how many blocks have each
OTHER_PROGRAMS = {
    "apt-get": 1,
    "git": 2,
    "make": 4,
    "mlx.launch": 2,
    "pip": 6,
    "pyinstaller": 1,
    "python": 2,
}  # the programs whose commands are not run here, and how many each has
SHELL = {"|", "<", ">"}
COLUMNS = 90
LENGTH = {"--epochs", "--iters", "--dry-run", "-c", "knn"}  # with one of these a training is short
BEFORE = {
    "evaluating": ["finetune --data images/ --model large-224 --adapter-path adapters --epochs 1"],
    "file-formats": ["embed photos/ -o photos.npz"],
}  # what a page takes over from other pages
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
EXTRAS = set(re.findall(r"^([\w-]+) = \[", (ROOT / "pyproject.toml").read_text().partition(
    "[project.optional-dependencies]")[2].partition("\n[")[0], re.M))  # fmt: skip

INSIDE = {path.name for folder in (ROOT, ROOT / "mlx_aimv2") for path in folder.iterdir()} - {"images"}


@pytest.fixture(scope="session")
def samples(tmp_path_factory, checkpoint):
    """The files that the pages speak of."""
    folder = tmp_path_factory.mktemp("samples")
    for name, variant in ((DEFAULT_MODEL, "lit"), ("large-224", "fixed")):
        shutil.copytree(checkpoint(variant), folder / name)
    names = ["photo", *(f"photos/{k}" for k in range(4))]
    names += [f"images/{label}/{k}" for label in ("cat", "dog") for k in range(5)]
    for number, name in enumerate(names):
        path = folder / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 60), (20 * number, 255 - 15 * number, 90)).save(path)
    texts = {
        "boxes.csv": "path,left,top,right,bottom\nphotos/0.jpg,10,10,50,40\nphotos/1.jpg,0,0,40,60\n",
        "captions.csv": "path,caption\n" + "".join(f"photos/{k}.jpg,image {k} of a dog\n" for k in range(4)),
        "labels.txt": "cat\ndog\n",
        "texts.txt": "a dog\na cat\n",
        "options.yaml": "learning_rate: 1e-5\nepochs: 1\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    table = pyarrow.table({"image": [(folder / "photo.jpg").read_bytes()], "name": ["cat"]})
    parquet.write_table(table, folder / "table.parquet")
    with tarfile.open(folder / "shard.tar", "w") as archive:
        archive.add(folder / "photos", "photos")
    with av.open(str(folder / "clip.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 80, 60
        for number in range(30):
            image = Image.new("RGB", (80, 60), (8 * number, 90, 40))
            file.mux(stream.encode(av.VideoFrame.from_image(image)))
        file.mux(stream.encode())
    return folder


@pytest.fixture
def workplace(samples, tmp_path, monkeypatch):
    """A folder with the sample files, in which everything runs without compiled kernels."""
    import mlx.core as mx

    shutil.copytree(samples, tmp_path / "work")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "mlx-aimv2"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m mlx_aimv2 "$@"\n')
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path / "work")
    for name, value in {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1",
                        "MLX_AIMV2_DEVICE": "cpu", "PYTHONPATH": str(ROOT)}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    mx.disable_compile()
    yield tmp_path / "work"
    mx.enable_compile()


def parse(words):
    """Parse a command line of the program without running it."""
    group = typer.main.get_command(app)
    context = group.make_context("mlx-aimv2", list(words), resilient_parsing=False)
    if context.invoked_subcommand is None and not context._protected_args:
        return
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    command.make_context(name, rest, parent=context)


def check_other_program(words):
    """Check what can be checked of a command of another program, which is not run."""
    program, *arguments = words
    assert program in OTHER_PROGRAMS, words
    if program == "make":
        assert all(re.search(rf"^{target}:", MAKEFILE, re.M) for target in arguments), words
    elif program == "pip":
        extras = ",".join(re.findall(r"\[(.*?)\]", " ".join(arguments)))
        assert {extra for extra in extras.split(",") if extra} <= EXTRAS, words
    elif program == "mlx.launch":
        parse(arguments[arguments.index("mlx-aimv2") + 1 :])
    elif program == "python":
        assert (ROOT / arguments[0]).is_file(), words


def on_a_terminal(words):
    """The exit status of a command and the lines that a terminal shows."""
    terminal = Terminal(COLUMNS)
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("COLUMNS", str(COLUMNS))
        patch.setenv("TERM", "xterm-256color")
        patch.setattr(sys, "stdout", stack.enter_context(terminal.open()))
        patch.setattr(sys, "stderr", stack.enter_context(terminal.open()))
        status = run(words[1:])
    terminal.close()
    return status, terminal.lines


def same_line(shown, seen):
    """Whether two lines agree but for bars, small differences of numbers, and all numbers of messages (times)."""
    if [NUMBER.sub("0", word) for word in shown.split() if "█" not in word] != [
        NUMBER.sub("0", word) for word in seen.split() if "█" not in word
    ]:
        return False
    if shown.startswith("mlx-aimv2:"):
        return True
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(seen), strict=True)
    return all(
        abs(float(a.replace(",", "")) - float(b.replace(",", "")))
        <= 0.02 + 0.02 * abs(float(a.replace(",", "")))
        for a, b in pairs
    )


def check_command(command, monkeypatch):
    words = command.words
    for name, value in command.variables.items():
        monkeypatch.setenv(name, value)
    if SHELL & set(words):
        done = subprocess.run(command.line, shell=True, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (command.block.place, command.line, done.stderr)
    elif words[0] != "mlx-aimv2":
        check_other_program(words)
    elif command.block.parsed_only:
        parse(words[1:])
    elif command.output:
        status, lines = on_a_terminal(words)
        assert status == 0, (command.block.place, command.line, lines)
        shown = command.output.rstrip().splitlines()
        assert len(shown) == len(lines), (command.block.place, command.line, lines)
        wrong = [(a, b) for a, b in zip(shown, lines, strict=True) if not same_line(a, b)]
        assert not wrong, (command.block.place, command.line)
    else:
        is_long = words[1] == "finetune" and not LENGTH & set(words)
        words += ["--epochs", "1"] if is_long else []  # the default is hundreds of steps
        assert run(words[1:]) == 0, (command.block.place, command.line)


def check_python(block, output, capsys):
    """Run a block; the `text` block behind it, if there is one, is its output."""
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a folder stands in for a published checkpoint
        exec(compile("\n" * (block.line - 1) + block.text, str(block.page), "exec"), {"__name__": "__main__"})
    if output is not None:
        shown, seen = output.splitlines(), capsys.readouterr().out.splitlines()
        assert len(shown) == len(seen) and all(map(same_line, shown, seen)), (block.place, seen)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_everything_on_a_page_runs(page, workplace, monkeypatch, capsys):
    for line in BEFORE.get(page.stem, []):
        assert run(line.split()) == 0
    every = blocks(page)
    for block, following in zip(every, [*every, None][1:], strict=True):
        if block.language == "python":
            is_output = following is not None and following.language == "text"
            check_python(block, following.text if is_output else None, capsys)
        for command in commands(block):
            with monkeypatch.context() as patch:
                check_command(command, patch)


def test_few_commands_are_of_other_programs():
    every = [command.words for page in PAGES for block in blocks(page) for command in commands(block)]
    others = Counter(words[0] for words in every if words[0] != "mlx-aimv2" and not SHELL & set(words))
    assert others == OTHER_PROGRAMS


def test_few_blocks_are_only_parsed():
    reasons = [block.parsed_only for page in PAGES for block in blocks(page) if block.parsed_only]
    assert {reason: reasons.count(reason) for reason in reasons} == PARSED_ONLY


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_options_within_sentences_exist(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for line in INLINE.findall(text):
        words = line.split()
        if "COMMAND" not in words and "MODEL" not in words:
            name = next((word for word in words[1:] if not word.startswith("-")), None)
            assert name is None or name in typer.main.get_command(app).commands, line
    known = {name for command in typer.main.get_command(app).commands.values()
             for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}  # fmt: skip
    known |= {"--help", "--version", "--debug", "--install-completion", "--show-completion"}
    used = {name for code in re.findall(r"`([^`\n]*)`", text) if not code.startswith(OTHERS)
            for name in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)}  # fmt: skip
    assert used <= known, used - known


OTHERS = ("pytest", "python", "pip", "git", "ruff", "mlx.launch")


def test_links_between_pages_and_files_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not target.startswith(("http://", "https://")):
                assert (page.parent / target).exists(), (page, target)


def test_the_page_of_the_command_line_has_every_command():
    hooks = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
    text = hooks["on_page_markdown"]("# Command line\n" + hooks["PLACE"])
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    group = typer.main.get_command(app)
    assert list(sections) == list(group.commands)
    for name, command in group.commands.items():
        assert all(f"`{parameter.opts[0]}" in sections[name] or parameter.param_type_name == "argument"
                   for parameter in command.params if not parameter.hidden)  # fmt: skip
    assert hooks["on_page_markdown"]("no place") == "no place"
    table = hooks["on_page_markdown"]("<!-- fields: FinetuneOptions -->")
    assert "| `epochs` | `int | None` | `None` | Times to go over" in table


def test_results_of_the_benchmarks_are_shown_in_parts(tmp_path):
    results = runpy.run_path(str(ROOT / "docs" / "hooks.py"))["results"]
    assert "make bench" in results("", tmp_path) and results("forward", tmp_path) == ""
    (tmp_path / "RESULTS.md").write_text("# Title\n\n| ratio |\n\n## Forward\n\n| time |\n")
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "forward.png").touch()
    assert results("", tmp_path).split() == "| ratio | ## Forward | time |".split()
    assert results("ratios", tmp_path).split() == "| ratio |".split()
    assert results("forward", tmp_path) == "![forward](plots/forward.png)"


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    assert set(re.findall(r"[\w-]+\.md", navigation)) == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_every_public_name_is_on_the_page_of_the_api():
    import mlx_aimv2

    page = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    errors = {name for name in mlx_aimv2.__all__ if name.endswith("Error")}
    assert set(re.findall(r"^::: mlx_aimv2\.(\w+)$", page, re.M)) == set(mlx_aimv2.__all__) - errors | {
        "errors"
    }


def test_files_and_folders_that_pages_name_exist():
    for page in PAGES:
        for name in re.findall(r"`([\w/]+(?:\.py|/))`", page.read_text(encoding="utf-8")):
            places = (ROOT / name, ROOT / "mlx_aimv2" / name)
            if name.split("/")[0] in INSIDE:
                assert any(place.exists() for place in places), (page.name, name)


def test_every_file_names_the_same_version():
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert set(re.findall(r"mlx_aimv2-([\d.]+)-py3", pages)) == {__version__}
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130
