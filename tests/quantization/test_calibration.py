"""Quantizing with images: layer by layer, in the ordinary format, closer to the original."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from drawn_world.untrained import TINY, TINY_VISION, write_checkpoint

from mlx_aimv2 import Embedder, LoadOptions, convert, load
from mlx_aimv2.conversion.options import ConvertOptions
from mlx_aimv2.conversion.plan import plan_conversion
from mlx_aimv2.errors import InputError, NonFiniteError
from mlx_aimv2.events import Notice, Progress, Skipped, ignore
from mlx_aimv2.fidelity.sample_drawings import draw
from mlx_aimv2.models.layers import EncoderLayer
from mlx_aimv2.quantization.calibration import IMAGES, _attend, read_images, through_layer
from mlx_aimv2.quantization.scheme import Scheme

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the notices of `warn`

WIDE = replace(TINY_VISION, hidden_size=128, intermediate_size=192, num_hidden_layers=3)
TEXT = replace(TINY.text_config, hidden_size=64, intermediate_size=128, num_attention_heads=2)
KINDS = {
    "vision": WIDE,
    "biases": replace(WIDE, qkv_bias=True, mlp_bias=True),
    "native": replace(WIDE, is_native=True, use_head=False),
    "lit": replace(TINY, vision_config=WIDE, text_config=TEXT),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number, drawing in enumerate(draw(24, seed=1)):
        drawing.image.save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    layouts = dict.fromkeys(KINDS, "transformers") | {"vision": "apple"}
    return {kind: write_checkpoint(root / kind, config, layouts[kind]) for kind, config in KINDS.items()}


def vectors(folder):
    model, processor = load(folder, dtype="float32", on_event=ignore)
    return Embedder(model, processor, pooling="mean").images([d.image for d in draw(12, seed=9)])


def least_cosine(a, b):
    return float((a * b).sum(axis=1).min())


@pytest.mark.parametrize(
    ("kind", "bits"), [("vision", 2), ("vision", 4), ("biases", 3), ("native", 4), ("lit", 2), ("lit", 3)]
)
def test_a_calibrated_checkpoint_is_closer_to_the_original(sources, images, tmp_path, kind, bits):
    source, options = sources[kind], ConvertOptions(scheme=Scheme(64, bits), dtype="float16")
    plain = convert(source, tmp_path / "plain", options=options)
    calibrated = convert(source, tmp_path / "calibrated", options=replace(options, calibrate=(str(images),)))
    expected = vectors(source)
    lost = [1 - least_cosine(vectors(folder), expected) for folder in (plain, calibrated)]
    assert lost[1] < 0.7 * lost[0]


def test_only_the_vision_layers_weights_differ_from_plain_rounding(sources, images, tmp_path):
    options = ConvertOptions(scheme=Scheme(64, 4))
    folders = [
        convert(sources["lit"], tmp_path / "plain", options=options),
        convert(sources["lit"], tmp_path / "out", options=replace(options, calibrate=(str(images),))),
    ]
    plain, out = (mx.load(str(folder / "model.safetensors")) for folder in folders)
    assert {name: (x.shape, x.dtype) for name, x in plain.items()} == {
        name: (x.shape, x.dtype) for name, x in out.items()
    }
    changed = {name for name, x in plain.items() if not mx.array_equal(x, out[name])}
    assert {name.split(".layers.")[0] for name in changed} == {"vision_model.encoder"}
    assert {name.split(".")[-2] for name in changed} == {
        *(f"{x}_proj" for x in ("q", "k", "v", "out", "gate", "up", "down"))
    }
    assert folders[0].joinpath("config.json").read_text() == folders[1].joinpath("config.json").read_text()


def test_the_same_images_give_the_same_checkpoint(sources, images, tmp_path):
    options = ConvertOptions(scheme=Scheme(64, 3), calibrate=(str(images),))
    first, second = (
        mx.load(str(convert(sources["vision"], tmp_path / name, options=options) / "model.safetensors"))
        for name in "ab"
    )
    assert all(mx.array_equal(x, second[name]) for name, x in first.items())


def test_a_recipe_is_calibrated_too(sources, images, tmp_path):
    options = ConvertOptions(quant_predicate="mixed_2_6", calibrate=(str(images),))
    folder = convert(sources["vision"], tmp_path / "out", options=options)
    load(folder, options=LoadOptions(keep_quantized=True), on_event=ignore)
    plain = convert(sources["vision"], tmp_path / "plain", options=replace(options, calibrate=()))
    expected = vectors(sources["vision"])
    assert least_cosine(vectors(folder), expected) > least_cosine(vectors(plain), expected)


def test_a_layer_in_steps_is_the_layer():
    mx.random.seed(0)
    layer = EncoderLayer(KINDS["biases"])
    layer.eval()
    tokens = [mx.random.normal((1, n, 128)) for n in (5, 9)]
    seen = []
    result = through_layer(
        layer, tokens, lambda module, path, names, inputs: seen.append((path, names, inputs[1].shape))
    )
    for x, y in zip(tokens, result, strict=True):
        np.testing.assert_allclose(np.array(y), np.array(layer(x)[0]), rtol=1e-5, atol=1e-5)
    assert seen == [
        ("attention", ("q_proj", "k_proj", "v_proj"), (1, 9, 128)),
        ("attention", ("out_proj",), (1, 9, 128)),
        ("ffn", ("gate_proj", "up_proj"), (1, 9, 128)),
        ("ffn", ("down_proj",), (1, 9, 192)),
    ]
    attended = _attend(layer, layer.rms_norm1(tokens[0]))
    assert attended.shape == (1, 5, 128)


def test_what_happens_is_told(sources, images, tmp_path):
    (tmp_path / "mixed").mkdir()
    for path in sorted(images.iterdir())[:3]:
        (tmp_path / "mixed" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "mixed" / "broken.png").write_bytes(b"no image")
    events = []
    options = ConvertOptions(scheme=Scheme(), calibrate=(str(tmp_path / "mixed"),))
    convert(sources["lit"], tmp_path / "out", options=options, on_event=events.append)
    assert [e.source.rpartition("/")[2] for e in events if isinstance(e, Skipped)] == ["broken.png"]
    notices = [e.message for e in events if isinstance(e, Notice)]
    assert "15 weights of the text encoder are rounded plainly: images do not reach them" in notices
    layers = [e for e in events if isinstance(e, Progress) and e.stage == "calibrating"]
    assert [(e.done, e.total) for e in layers] == [(1, 3), (2, 3), (3, 3)]


def test_of_many_images_some_are_taken_evenly(sources):
    _, processor = load(sources["vision"])
    drawings = [d.image for d in draw(IMAGES * 3)]
    pixels = read_images(drawings, processor, ignore)
    assert len(pixels) == IMAGES
    expected = processor(images=[drawings[3]])["pixel_values"]
    assert mx.array_equal(pixels[1], expected)


def test_images_none_of_which_can_be_read_are_refused(sources, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.png").write_bytes(b"no image")
    options = ConvertOptions(scheme=Scheme(), calibrate=(str(tmp_path / "in"),))
    with pytest.raises(InputError, match="none of the images to calibrate with can be read"):
        convert(sources["vision"], tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_images_is_found_before_the_checkpoint(tmp_path):
    (tmp_path / "empty").mkdir()
    options = ConvertOptions(scheme=Scheme(), calibrate=(str(tmp_path / "empty"),))
    with pytest.raises(InputError, match=r"no images in the folder .*empty"):
        convert(tmp_path / "no-checkpoint", tmp_path / "out", options=options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": Scheme(32, 4, "mxfp4")}, "calibration is for affine quantization, not for mxfp4"),
        ({"scheme": Scheme(16, 4, "nvfp4")}, "calibration is for affine quantization, not for nvfp4"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        ConvertOptions(calibrate=("images",), **options)


def test_calibration_without_quantization_is_refused(tmp_path):
    with pytest.raises(InputError, match="--calibrate is a way to quantize: ask for that too, with -q"):
        plan_conversion(tmp_path / "no-checkpoint", ConvertOptions(calibrate=("images",)))


def test_a_checkpoint_that_gives_nan_is_refused(images, tmp_path):
    source = write_checkpoint(tmp_path / "source", WIDE, "mlx")
    tensors = mx.load(str(source / "model.safetensors"))
    tensors["encoder.layers.1.rms_norm1.weight"] = mx.full((128,), float("nan"))
    mx.save_safetensors(str(source / "model.safetensors"), tensors, metadata={"format": "mlx"})
    options = ConvertOptions(scheme=Scheme(), calibrate=(str(images),))
    with pytest.raises(NonFiniteError, match="the images to calibrate with give NaN or infinity"):
        convert(source, tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_a_plan_of_a_calibrated_conversion_goes_layer_by_layer(sources):
    planned = plan_conversion(sources["lit"], ConvertOptions(scheme=Scheme(), calibrate=("x",))).planned
    start = "vision_model.encoder.layers."
    numbers = [int(one.name[len(start) :].split(".")[0]) for one in planned if one.name.startswith(start)]
    assert numbers == sorted(numbers)
