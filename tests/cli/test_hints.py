"""Options that messages name: each exists, on the verb that says it or that the message names."""

import ast
import re
from pathlib import Path

import pytest
from typer.main import get_command

import mlx_aimv2
from mlx_aimv2.cli.app import app
from mlx_aimv2.cli.hints import REPHRASED, fitted, options_of

PACKAGE = Path(mlx_aimv2.__file__).parent
VERBS = set(get_command(app).commands)
EVERYWHERE = {"--help", "--debug", "--version"}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]")
COMMAND = re.compile(rf"(?:mlx-aimv2 |`|^)({'|'.join(VERBS)}) ([^`;]*)", re.MULTILINE)
PARTS = {"{}/--no-{}", " --revision {}"}  # of the options of `finetune`, and of a command of the Hub
OTHERS = re.compile(r"`(?:hf|git) [^`]*`|pip install [^`]*")  # commands of other programs
MODELS = VERBS - {"models"}
REACHED = {  # which verbs meet the messages of a part; elsewhere a message is the verb's own
    "checkpoints": MODELS,
    "loading.py": MODELS,
    "models/backend.py": VERBS - {"models", "info", "upload", "export", "fuse"},
    "processing/processor.py": {"embed", "classify", "evaluate", "demo", "finetune"},
    "processing/decode.py": {"embed", "classify", "evaluate", "convert", "finetune"},
    "image_stream.py": {"embed", "classify", "evaluate", "convert", "demo", "finetune"},
    "embedding.py": {"embed", "classify", "evaluate", "convert", "demo", "finetune"},
    "zeroshot.py": {"classify", "evaluate", "demo", "convert"},
    "retrieval.py": {"evaluate", "finetune"},
    "conversion.py": {"convert", "export", "fuse"},
    "adapters": {"embed", "classify", "evaluate", "export", "fuse"},
    "class_names.py": {"classify", "evaluate"},
    "label_files.py": {"classify", "evaluate"},
}


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
    if OPTION.search(text) and path.name != "hints.py" and text not in PARTS
]


def test_there_are_messages():
    assert len(MESSAGES) > 100


@pytest.mark.parametrize(("path", "text"), MESSAGES, ids=lambda value: str(value)[:60])
def test_every_option_exists_where_it_is_named(path, text):
    somewhere = EVERYWHERE.union(*map(options_of, VERBS))
    assert set(OPTION.findall(text)) <= somewhere
    for found in COMMAND.finditer(text):
        assert set(OPTION.findall(found[2])) <= options_of(found[1]) | EVERYWHERE


def verbs_of(path):
    return next((verbs for part, verbs in REACHED.items() if str(path).startswith(part)), set())


@pytest.mark.parametrize(
    ("path", "text"), [one for one in MESSAGES if verbs_of(one[0])], ids=lambda value: str(value)[:60]
)
def test_a_verb_is_not_told_of_options_it_lacks(path, text):
    for verb in verbs_of(path):
        left = re.sub(r"`[^`]*`", "", fitted(text, verb))
        assert set(OPTION.findall(left)) <= options_of(verb), verb


@pytest.mark.parametrize(
    ("verb", "message", "expected"),
    [
        ("embed", "no folder x (--model PATH)", "no folder x (--model PATH)"),
        ("info", "no folder x: give a local folder (--model PATH)", "no folder x: give a local folder (PATH)"),
        ("export", "it is not there: name its place with --model", "it is not there: name its place"),
        ("upload", "2 weight files (a, b): name one with --weights", "2 weight files (a, b): keep the one that is"
         " meant, without the others, in a folder"),
        ("finetune", "400 megapixels, 200 allowed (max_megapixels, --max-megapixels)",
         "400 megapixels, 200 allowed (max_megapixels)"),
        ("demo", "use the image-text pair, --model lit", "use the image-text pair, --model lit"),
        ("fuse", "NaN in float16: damaged, or needs --dtype bfloat16", "NaN in float16: damaged, or needs bfloat16"),
        ("finetune", "resample its positions with --interpolate-positions",
         "resample its positions with `mlx-aimv2 convert --interpolate-positions`"),
        ("finetune", "out exists already: name another, or replace it with --force",
         "out exists already: name another"),
    ],
)  # fmt: skip
def test_what_a_verb_says_instead(verb, message, expected):
    assert fitted(message, verb) == expected


def test_every_rule_is_of_use():
    for option, pattern, _ in REPHRASED:
        assert any(re.search(pattern, text) for _, text in MESSAGES), pattern
        assert any(option not in options_of(verb) for verb in VERBS)


def test_upload_of_several_weight_files(cli, pair, tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes((pair / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_bytes((pair / "config.json").read_bytes())
    done = cli("upload", tmp_path, "somebody/model", "--dry-run")
    assert done.returncode == 1
    assert "--weights" not in done.stderr and "keep the one that is meant" in done.stderr
