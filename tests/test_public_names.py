"""The public names of the package: which there are, that each is documented, and what importing them costs."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import mlx_aimv2
from mlx_aimv2 import errors

ROOT = Path(__file__).parents[1]
NAMES = {
    "Aimv2Config", "Aimv2Model", "Aimv2TextConfig", "Aimv2TextModel", "Aimv2VisionConfig", "Aimv2VisionModel",
    "BatchEmbedder",
    "ConvertOptions", "DecodeOptions", "Embedder", "ExportOptions", "FinetuneOptions", "FuseOptions", "LoadOptions",
    "Found", "NativeOptions", "Scheme", "SourceImage", "SourceOptions", "find_sources",
    "TrainedClassifier", "Vectors", "ZeroShotClassifier", "convert", "crops", "evaluate_labels", "evaluate_retrieval",
    "export", "finetune", "fuse", "load",
    "read_vectors", "sample_images",
}  # fmt: skip
ERRORS = {
    name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)
}


def test_the_public_names_are_these_and_all_errors():
    assert set(mlx_aimv2.__all__) == NAMES | ERRORS
    assert mlx_aimv2.__all__ == sorted(mlx_aimv2.__all__)
    assert set(dir(mlx_aimv2)) == {*mlx_aimv2.__all__, "__version__"}
    assert all(getattr(mlx_aimv2, name).__name__ == name for name in mlx_aimv2.__all__)
    with pytest.raises(AttributeError, match="module 'mlx_aimv2' has no attribute 'nothing'"):
        mlx_aimv2.nothing  # noqa: B018


def test_type_checkers_see_the_same_modules_as_python():
    tree = ast.parse(Path(mlx_aimv2.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    static = {alias.name: node.module for node in block.body for alias in node.names}
    assert static == mlx_aimv2._WITHOUT_MLX | mlx_aimv2._WITH_MLX


@pytest.mark.parametrize("name", sorted(NAMES | ERRORS))
def test_a_public_name_has_a_docstring(name):
    value = getattr(mlx_aimv2, name)
    text = inspect.getdoc(value)
    assert text and not text.startswith(f"{name}(")  # which a dataclass writes for itself
    if inspect.isclass(value):
        methods = [
            (key, inspect.unwrap(member.fget if isinstance(member, property) else member))
            for key, member in vars(value).items()
            if not key.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
        ]
        assert [key for key, method in methods if not method.__doc__ and f"{key}:" not in text] == []


DEEPER = re.compile(r"\bfrom (mlx_aimv2\.[\w.]+) import|\bimport (mlx_aimv2\.[\w.]+)")


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*.*"))],
    ids=lambda path: path.name,
)
def test_readme_documentation_and_examples_import_public_names_only(path):
    assert DEEPER.findall(path.read_text(encoding="utf-8")) == []


def test_on_event_has_one_default():
    defaults = set()
    for path in Path(mlx_aimv2.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.arguments):
                positional = [*node.posonlyargs, *node.args]
                pairs = [
                    *zip(positional[::-1], node.defaults[::-1], strict=False),
                    *zip(node.kwonlyargs, node.kw_defaults, strict=True),
                ]
                defaults |= {ast.unparse(value) for name, value in pairs if name.arg == "on_event" and value}
    assert defaults == {"warn"}
