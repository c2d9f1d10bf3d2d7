"""Options that messages name: each exists, on the verb that says it or that the message names."""

import ast
import re
from pathlib import Path

from typer.main import get_command

import mlx_aimv2
from mlx_aimv2.cli.app import app

PACKAGE = Path(mlx_aimv2.__file__).parent
COMMANDS = get_command(app).commands
EVERYWHERE = {"--help", "--debug", "--version", "--compare"}  # the last is refused
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]")
COMMAND = re.compile(rf"(?:mlx-aimv2 |`|^)({'|'.join(COMMANDS)}) ([^`;]*)", re.MULTILINE)
OTHERS = re.compile(
    r"`(?:hf|git) [^`]*`|pip install [^`]*|--no-\{}| --revision \{}"
)  # of other programs, or made
LOADING = (
    "adapters",
    "backend",
    "checkpoints",
    "processing",
    "quantization",
    "sources",
    "storage",
    "loading.py",
)


def options_of(verb):
    return {name for one in COMMANDS[verb].params for name in (*one.opts, *one.secondary_opts)}


def named(command):
    """The options of a verb by their names in Python."""
    return {one.name for one in command.params if one.param_type_name == "option"}


def literals(path):
    """Every text of a module but docstrings, with `{}` for what is filled in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    apart = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            apart.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            apart.update(map(id, node.values))
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in apart:
            yield node.value


MESSAGES = [
    (path.relative_to(PACKAGE), OTHERS.sub("", text))
    for path in sorted(PACKAGE.rglob("*.py"))
    for text in literals(path)
    if OPTION.search(OTHERS.sub("", text))
]


def test_every_option_exists_where_it_is_named():
    assert len(MESSAGES) > 100
    somewhere = EVERYWHERE.union(*map(options_of, COMMANDS))
    for path, text in MESSAGES:
        assert set(OPTION.findall(text)) <= somewhere, (path, text)
        for command in COMMAND.finditer(text):
            assert set(OPTION.findall(command[2])) <= options_of(command[1]) | EVERYWHERE, (path, text)


def test_packages_that_every_verb_uses_leave_options_to_the_advice():
    """All verbs that load a model reach these, with and without an option."""
    allowed = {"--device", "--exclude", "--adapter-path", "--hf-path", "--mlx-path"}
    for path, text in MESSAGES:
        if str(path).startswith(LOADING) and not path.name.endswith(
            "options.py"
        ):  # help texts, for one verb each
            assert set(OPTION.findall(re.sub(r"`[^`]*`", "", text))) <= allowed, (path, text)


def advices():
    """The option and the texts of every `Advice` in the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Advice":
                yield path, node.args[1].value


def test_every_advice_names_an_option_of_some_verb():
    found = list(advices())
    assert len(found) >= 10
    for path, option in found:
        having = [verb for verb, command in COMMANDS.items() if option in named(command)]
        assert having and len(having) < len(COMMANDS), (path, option)
        for verb in having:
            assert f"--{option.replace('_', '-')}" in options_of(verb)
