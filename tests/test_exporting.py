"""To the layouts of other programs and back."""

import json

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import Aimv2VisionConfig, convert, load
from mlx_aimv2.checkpoints.quantize import Scheme
from mlx_aimv2.demo.untrained import write_checkpoint
from mlx_aimv2.errors import InputError, OutputError
from mlx_aimv2.events import ignore
from mlx_aimv2.exporting import FORMATS, export
from mlx_aimv2.preparation import ConvertOptions


def parameters(folder):
    return dict(tree_flatten(load(folder, dtype="float32", on_event=ignore)[0].parameters()))


PUBLISHED = Aimv2VisionConfig(
    hidden_size=1024,
    num_attention_heads=8,
    intermediate_size=64,
    num_hidden_layers=1,
    image_size=28,
    use_head=False,
)


@pytest.fixture
def source(request, checkpoint, tmp_path):
    """A checkpoint in this package's layout; `large` has a published width, which timm insists on."""
    if request.param == "large":
        return write_checkpoint(tmp_path / "large", PUBLISHED, "mlx")
    return checkpoint(request.param, "mlx")


@pytest.mark.parametrize(
    ("source", "format"),
    [
        *((variant, format) for variant in ("fixed", "native", "head", "lit") for format in FORMATS[:3]),
        ("large", "timm"),
    ],
    indirect=["source"],
)
def test_there_and_back_is_the_same(source, tmp_path, format):
    folder = export(source, tmp_path / "out", format)
    assert load(folder)[0].origin.layout == format
    again = convert(folder, tmp_path / "again")
    expected = parameters(source)
    for found in (parameters(folder), parameters(again)):
        assert found.keys() == expected.keys()
        assert all(mx.array_equal(found[name], x) for name, x in expected.items())


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("lit", "timm has no place for an image-text pair, a pooling head or native resolution"),
        ("native", "timm has no place for"),
        ("head", "timm has no place for"),
        ("fixed", "timm has no AIMv2 of width 64 with 2 heads, only large"),
    ],
)
def test_timm_has_no_place_for_everything(checkpoint, tmp_path, variant, message):
    with pytest.raises(InputError, match=message):
        export(checkpoint(variant, "mlx"), tmp_path / "out", "timm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["transformers", "apple", "timm"])
def test_the_files_of_a_layout_come_back_bit_for_bit(tmp_path, format):
    source = write_checkpoint(tmp_path / "source", PUBLISHED, format)
    folder = export(convert(source, tmp_path / "mlx"), tmp_path / "out", format)
    before, after = (mx.load(str(path / "model.safetensors")) for path in (source, folder))
    assert before.keys() == after.keys()
    for name, x in before.items():
        assert x.dtype == after[name].dtype
        assert np.array_equal(np.array(x), np.array(after[name])), name


def test_quantized_weights_are_exported_plain(checkpoint, tmp_path):
    packed = convert(checkpoint("head", "mlx"), tmp_path / "q", options=ConvertOptions(scheme=Scheme(32, 8)))
    folder = export(packed, tmp_path / "out")
    assert "quantization" not in json.loads((folder / "config.json").read_text())
    expected, found = parameters(packed), parameters(folder)
    assert all(mx.array_equal(found[name], x) for name, x in expected.items())


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        ("onnx", {}, "format 'onnx' is not one of transformers, apple, apple-mlx, timm"),
        ("apple", {"scheme": Scheme()}, "other programs' layouts have no place for quantized weights"),
    ],
)
def test_what_cannot_be_is_refused(tiny_vision, tmp_path, format, options, message):
    with pytest.raises(InputError, match=message):
        export(tiny_vision, tmp_path / "out", format, options=ConvertOptions(**options))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused(tiny_vision, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        export(tiny_vision, tmp_path / "out")
