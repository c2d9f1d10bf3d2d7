"""To the layouts of other programs and back."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest
from drawn_world.untrained import write_checkpoint
from mlx.utils import tree_flatten

from mlx_aimv2 import Aimv2VisionConfig, convert, load
from mlx_aimv2.cli.app import run
from mlx_aimv2.conversion.export import export
from mlx_aimv2.conversion.options import EXPORT_FORMATS, ConvertOptions, ExportOptions
from mlx_aimv2.errors import InputError, OutputError
from mlx_aimv2.events import ignore
from mlx_aimv2.loading import inspect
from mlx_aimv2.processing.image_config import CLIP_MEAN, ImageProcessorConfig
from mlx_aimv2.quantization.scheme import Scheme

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the notices of `warn`


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
        *(
            (variant, format)
            for variant in ("fixed", "native", "head", "lit")
            for format in EXPORT_FORMATS[:3]
        ),
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


def stored(folder):
    """Every tensor of the one weight file: dtype, shape, bytes."""
    tensors = mx.load(str(folder / "model.safetensors"))
    return {name: (x.dtype, x.shape, np.array(x).tobytes()) for name, x in tensors.items()}


@pytest.mark.parametrize(
    ("variant", "format"),
    [
        *(
            (variant, x)
            for variant in ("fixed", "native", "head", "biases", "lit")
            for x in EXPORT_FORMATS[:3]
        ),
        ("large", "timm"),
    ],
)
def test_the_files_of_a_layout_come_back_bit_for_bit(checkpoint, tmp_path, variant, format):
    if variant == "large":
        source = write_checkpoint(tmp_path / "source", PUBLISHED, format)
    else:
        source = checkpoint(variant, format)
    folder = export(convert(source, tmp_path / "mlx"), tmp_path / "out", format)
    before, after = stored(source), stored(folder)
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == []


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("format", EXPORT_FORMATS[:3])
@pytest.mark.parametrize("variant", ["head", "lit"])
def test_one_dtype_is_written_at_one_place(checkpoint, tmp_path, variant, format):
    source = shutil.copytree(checkpoint(variant, "mlx", "float16"), tmp_path / "source")
    data = config_of(source) | {"dtype": "float16", "torch_dtype": "bfloat16"}
    for part in ("vision_config", "text_config"):
        if part in data:
            data[part] |= {"dtype": "float16", "torch_dtype": "float16"}
    (source / "config.json").write_text(json.dumps(data))
    entry = config_of(export(source, tmp_path / "out", format, options=ExportOptions(dtype="float32")))
    assert entry.pop("dtype") == entry.pop("torch_dtype") == "float32"
    assert "dtype" not in json.dumps(entry)


@pytest.mark.parametrize("format", EXPORT_FORMATS[:3])
@pytest.mark.parametrize("variant", ["fixed", "native", "lit"])
def test_a_preprocessor_is_written_where_the_source_has_none(checkpoint, tmp_path, variant, format):
    source = shutil.copytree(checkpoint(variant, "mlx"), tmp_path / "source")
    (source / "preprocessor_config.json").unlink()
    path = export(source, tmp_path / "out", format) / "preprocessor_config.json"
    assert json.loads(path.read_text())["image_processor_type"] == "CLIPImageProcessor"
    written = ImageProcessorConfig.from_dict(json.loads(path.read_text()))
    assert written.image_mean == CLIP_MEAN
    assert (written.do_resize, written.do_center_crop) == (variant != "native", variant != "native")
    assert load(tmp_path / "out", on_event=ignore)[1].image_processor.config.size == 56


def test_a_preprocessor_of_the_source_stays_as_it_is(checkpoint, tmp_path):
    source = shutil.copytree(checkpoint("fixed", "mlx"), tmp_path / "source")
    (source / "preprocessor_config.json").write_text('{"size": 56, "crop_size": 56, "image_mean": 0.5}')
    folder = export(source, tmp_path / "out")
    before, after = ((x / "preprocessor_config.json").read_bytes() for x in (source, folder))
    assert before == after


def test_timm_is_told_how_images_are_prepared(tmp_path):
    source = write_checkpoint(tmp_path / "source", PUBLISHED, "mlx")
    path = source / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_mean": [0.1, 0.2, 0.3], "size": 32}))
    told = config_of(export(source, tmp_path / "out", "timm"))["pretrained_cfg"]
    assert told["mean"] == [0.1, 0.2, 0.3] and told["crop_pct"] == 28 / 32
    path.unlink()
    told = config_of(export(source, tmp_path / "default", "timm"))["pretrained_cfg"]
    assert told["mean"] == list(CLIP_MEAN) and told["crop_pct"] == 1.0


def test_what_timm_wrote_of_itself_is_left_behind(tmp_path):
    """By `pretrained_cfg` transformers takes a folder for timm's."""
    source = write_checkpoint(tmp_path / "source", PUBLISHED, "mlx")
    folder = export(export(source, tmp_path / "timm", "timm"), tmp_path / "out")
    left = {"architecture", "num_classes", "num_features", "global_pool", "pretrained_cfg"}
    assert left <= config_of(tmp_path / "timm").keys()
    assert not left & config_of(folder).keys()


def run_export(*arguments):
    """The status of `mlx-aimv2 export`, in this process."""
    return run(["export", *map(str, arguments)])


def test_the_weight_file_can_be_named(tiny_vision, checkpoint, tmp_path, capsys):
    source = shutil.copytree(tiny_vision, tmp_path / "source")
    shutil.copyfile(
        checkpoint("fixed", "apple-mlx", "float16") / "model.safetensors", source / "half.safetensors"
    )
    status = run_export(source, tmp_path / "out", "--weights", "half.safetensors", "--dtype", "float16")
    assert status == 0, capsys.readouterr().err
    assert config_of(tmp_path / "out")["dtype"] == "float16"
    expected = export(source, tmp_path / "again", options=ExportOptions(weights="half.safetensors"))
    assert stored(tmp_path / "out") == stored(expected)
    assert stored(expected) != stored(export(source, tmp_path / "usual"))


def test_the_revision_is_asked_for(tiny_vision, tmp_path, capsys):
    assert run_export(tiny_vision, tmp_path / "out", "--revision", "v1") != 0
    assert "is a local folder, which has no revision 'v1'" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(InputError, match="which has no revision 'v1'"):
        export(tiny_vision, tmp_path / "out", revision="v1")


def test_quantized_weights_are_exported_plain(checkpoint, tmp_path):
    packed = convert(checkpoint("head", "mlx"), tmp_path / "q", options=ConvertOptions(scheme=Scheme(32, 8)))
    folder = export(packed, tmp_path / "out")
    assert "quantization" not in json.loads((folder / "config.json").read_text())
    expected, found = parameters(packed), parameters(folder)
    assert all(mx.array_equal(found[name], x) for name, x in expected.items())


def test_an_unknown_format_is_refused(tiny_vision, tmp_path):
    with pytest.raises(InputError, match="format 'onnx' is not one of transformers, apple, apple-mlx, timm"):
        export(tiny_vision, tmp_path / "out", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_replaced_when_asked(tiny_vision, tmp_path):
    for format in ("apple", "transformers"):
        export(tiny_vision, tmp_path / "out", format, options=ExportOptions(force=True))
    assert inspect(tmp_path / "out").layout.name == "transformers"
    with pytest.raises(InputError, match="is the source: name another folder"):
        export(tmp_path / "out", tmp_path / "out", options=ExportOptions(force=True))


def test_an_existing_folder_is_refused(tiny_vision, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        export(tiny_vision, tmp_path / "out")
