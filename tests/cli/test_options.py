"""Every option of every verb is a field of a dataclass, and no option is described twice."""

import ast
import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from typer.main import get_command

import mlx_aimv2
from mlx_aimv2.benchmarking.options import BenchOptions
from mlx_aimv2.checkpoints.load_options import FileOptions
from mlx_aimv2.cli.app import VERBS, app
from mlx_aimv2.cli.parameters import FieldsOf, expand
from mlx_aimv2.datasets.options import Reading
from mlx_aimv2.demo.options import TourOptions
from mlx_aimv2.options.fields import REQUIRED
from mlx_aimv2.processing.options import DecodeOptions, NativeOptions
from mlx_aimv2.sources.options import SourceOptions
from mlx_aimv2.vectors.options import WriterOptions

COMMANDS = get_command(app).commands
LIBRARY = {  # the verbs that take over the fields of a dataclass, for each
    mlx_aimv2.LoadOptions: "embed classify evaluate compare".split(),
    DecodeOptions: "embed classify evaluate compare".split(),
    NativeOptions: "embed classify evaluate compare bench".split(),
    FileOptions: "embed classify evaluate compare info convert export fuse".split(),
    Reading: "embed classify evaluate compare convert finetune".split(),
    mlx_aimv2.ConvertOptions: ["convert"],
    mlx_aimv2.ExportOptions: ["export"],
    mlx_aimv2.FuseOptions: ["fuse"],
    mlx_aimv2.FinetuneOptions: ["finetune"],
    BenchOptions: ["bench"],
    TourOptions: ["demo"],
    WriterOptions: ["embed"],
    SourceOptions: "embed classify".split(),
}
OTHER_DEFAULTS = {  # where the command line decides otherwise
    ("decode", "fast"): "embed and classify read many large photos",
    ("dtype", "auto"): "None is spelled out",
    ("color_managed", True): "evaluate and compare read exactly, and colours as they look",
}


def fields_of(verb):
    """The fields that become options of a verb, by name, and whether an option may be left out of them."""
    fields = {}
    for group in expand(verb.__wrapped__).groups.values():
        is_partial = isinstance(group, FieldsOf)
        for field in dataclasses.fields(group.options if is_partial else group):
            assert field.name not in fields, f"two fields are called {field.name}"
            fields[field.name] = field, is_partial
    return fields


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
def test_every_option_is_a_field(verb):
    fields = fields_of(verb)
    options = {x.name: x for x in COMMANDS[verb.__name__].params if x.param_type_name == "option"}
    options.pop("help", None)
    assert options.keys() == fields.keys()
    for name, option in options.items():
        field, is_partial = fields[name]
        text, default = field.metadata["help"], field.default
        shown = str(default).lower() if isinstance(default, bool) else default
        assert text and option.help in (text, f"{text} [default: {shown}]")
        assert option.required == (default is REQUIRED)
        expected = None if is_partial or default in (REQUIRED, ()) else default
        assert option.default == expected or (option.default, default) == ([], ())


@pytest.mark.parametrize("options", LIBRARY, ids=lambda options: options.__name__)
def test_verbs_take_over_the_fields_of_the_library(options):
    verbs = {verb.__name__: fields_of(verb) for verb in VERBS}
    for theirs in dataclasses.fields(options):
        for verb in LIBRARY[options]:
            field, _ = verbs[verb].get(theirs.name, (None, False))
            if field is None or not theirs.metadata or dataclasses.is_dataclass(theirs.default_factory):
                continue
            assert field.metadata["help"] == theirs.metadata["help"], (verb, field.name)
            assert field.default == theirs.default or (field.name, field.default) in OTHER_DEFAULTS


def test_no_help_text_stands_twice_in_the_code():
    texts = Counter()  # of a field's name and its help
    for path in Path(mlx_aimv2.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            call = getattr(node, "value", None)
            if isinstance(node, ast.AnnAssign) and getattr(getattr(call, "func", None), "id", "") == "option":
                texts[node.target.id, ast.unparse(call.args[1])] += 1
    assert len(texts) > 80 and [text for text, count in texts.items() if count > 1] == []
