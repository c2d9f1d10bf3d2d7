"""Quantizing on the way: what is packed, what is kept, and that it is what quantizing in memory gives."""

import json
import shutil
from collections import deque
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from drawn_world.untrained import TINY, write_checkpoint
from mlx.utils import tree_flatten

from mlx_aimv2 import LoadOptions, convert, load
from mlx_aimv2.backend.device import without_cache
from mlx_aimv2.checkpoints.files import find_weights, read_header
from mlx_aimv2.conversion.convert import _converted
from mlx_aimv2.conversion.options import ConvertOptions
from mlx_aimv2.conversion.plan import plan_conversion
from mlx_aimv2.errors import ConfigError, InputError, NonFiniteError, OutputError
from mlx_aimv2.events import Notice, ignore
from mlx_aimv2.fidelity.sample_drawings import draw
from mlx_aimv2.quantization.recipes import RECIPES
from mlx_aimv2.quantization.scheme import VALID, Scheme

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the notices of `warn`

SCHEMES = [
    Scheme(group, bits, mode) for mode, (groups, sizes) in VALID.items() for group in groups for bits in sizes
]
KINDS = ("vision", "native", "lit")
WIDE = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2}
PACKED = LoadOptions(keep_quantized=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A pair whose widths every group size divides, ten layers deep."""
    vision = replace(TINY.vision_config, num_hidden_layers=10, **WIDE)
    config = replace(TINY, vision_config=vision, text_config=replace(TINY.text_config, **WIDE))
    return write_checkpoint(tmp_path_factory.mktemp("wide") / "pair", config, "transformers")


def parameters(folder, **options):
    return dict(tree_flatten(load(folder, on_event=ignore, **options)[0].parameters()))


def is_packed(path, module):
    kept = ("head.", "_projection")
    return hasattr(module, "to_quantized") and not any(part in path for part in kept)


@pytest.fixture(scope="module")
def sources(tmp_path_factory, source):
    """A vision encoder, one of native resolution, and the pair."""
    root, vision = tmp_path_factory.mktemp("kinds"), replace(TINY.vision_config, num_hidden_layers=2, **WIDE)
    native = replace(vision, is_native=True, use_head=False)
    return {
        "vision": write_checkpoint(root / "vision", vision, "apple"),
        "native": write_checkpoint(root / "native", native, "apple-mlx"),
        "lit": source,
    }


# each scheme with one kind, and each kind with several schemes of every mode
PAIRS = [(scheme, KINDS[number % len(KINDS)]) for number, scheme in enumerate(SCHEMES)]
PAIRS += [(Scheme(), "lit"), (Scheme(), "native"), (Scheme(32, 4, "mxfp4"), "native")]


@pytest.mark.parametrize(("scheme", "kind"), PAIRS, ids=str)
def test_every_scheme_is_what_quantizing_in_memory_gives(sources, tmp_path, scheme, kind):
    source = sources[kind]
    folder = convert(source, tmp_path / "out", dtype="float16", options=ConvertOptions(scheme=scheme))
    model, _ = load(source, dtype="float16")
    nn.quantize(model, **scheme.arguments(), class_predicate=is_packed)
    expected = dict(tree_flatten(model.parameters()))
    found = parameters(folder, dtype="float16", options=PACKED)
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert found[name].dtype == x.dtype, name
        assert mx.array_equal(found[name], x), name


def arithmetic(scheme, weights):
    """Bytes of packed weights: their bits, and 16 bits of scale and bias (8 of scale in the mx modes) a group."""
    extra = 32 if scheme.mode == "affine" else 8
    return weights * (scheme.bits + extra / scheme.group_size) / 8


@pytest.mark.parametrize(("scheme", "kind"), PAIRS, ids=str)
def test_sizes_are_what_arithmetic_says(sources, tmp_path, scheme, kind):
    options = ConvertOptions(dtype="float16", scheme=scheme)
    planned = plan_conversion(sources[kind], options).planned
    packed = sum(np.prod(one.shape) for one in planned if one.scheme is not None)
    plain = sum(np.prod(one.shape) * one.dtype.size for one in planned if one.scheme is None)
    folder = convert(sources[kind], tmp_path / "out", options=options)
    written = sum(path.stat().st_size for path in find_weights(folder))
    header = len(read_header(find_weights(folder)).tensors) * 150  # bytes: small models have a large one
    assert written == pytest.approx(arithmetic(scheme, packed) + plain, rel=0.02, abs=header)


def test_what_stays_has_its_reason(source):
    conversion = plan_conversion(source, ConvertOptions(scheme=Scheme()))
    reasons = {one.name: one.reason for one in conversion.planned if one.scheme is None}
    assert all(reasons.values())
    vision = "vision_model."
    assert reasons[f"{vision}embeddings.patch_embed.weight"] == "the patch convolution sees raw pixels"
    assert reasons[f"{vision}head.k_proj.weight"] == "the pooling head makes the one vector of an image"
    assert reasons["visual_projection.weight"] == "the projections make the embeddings themselves"
    assert not any("encoder.layers" in name and "norm" not in name for name in reasons)
    assert "text_model.embeddings.token_embedding.weight" not in reasons


def test_widths_that_groups_do_not_divide_are_kept_and_said(tmp_path):
    narrow = write_checkpoint(tmp_path / "narrow", TINY)
    conversion = plan_conversion(narrow, ConvertOptions(scheme=Scheme(group_size=64)))
    reasons = {one.name: one.reason for one in conversion.planned}
    name = "text_model.encoder.layers.0.attention.q_proj.weight"
    assert reasons[name] == "its width 48 is not a multiple of 64"


@pytest.mark.parametrize("recipe", RECIPES)
def test_mixed_bits_go_to_value_and_down_projections(source, tmp_path, recipe):
    low, high = RECIPES[recipe]
    options = ConvertOptions(quant_predicate=recipe)
    folder = convert(source, tmp_path / "out", options=options)
    entry = json.loads((folder / "config.json").read_text())["quantization"]
    assert (entry["bits"], entry["group_size"]) == (low, 64)
    layers = "vision_model.encoder.layers"
    raised = {path for path, scheme in entry.items() if isinstance(scheme, dict) and scheme["bits"] == high}
    # of ten layers: the first eighth (1), the last (from 8.75 on, so 8 and 9), and every third between
    numbers = {int(path.split(".")[3]) for path in raised if path.startswith(layers)}
    assert numbers == {0, 3, 6, 8, 9}
    assert {path.rpartition(".")[2] for path in raised} == {"v_proj", "down_proj"}
    packed = parameters(folder, options=PACKED)
    scales = packed[f"{layers}.0.attention.v_proj.scales"], packed[f"{layers}.0.attention.q_proj.weight"]
    assert scales[0].shape == (128, 2)
    assert scales[1].shape == (128, 128 * low // 32)


def test_dequantizing_gives_what_the_packed_weights_meant(source, tmp_path):
    packed = convert(
        source, tmp_path / "packed", dtype="float32", options=ConvertOptions(scheme=Scheme(bits=8))
    )
    plain = convert(packed, tmp_path / "plain", options=ConvertOptions(dequantize=True))
    assert "quantization" not in json.loads((plain / "config.json").read_text())
    expected, found = parameters(packed), parameters(plain)
    assert all(mx.array_equal(found[name], x) for name, x in expected.items())


@pytest.mark.parametrize("limit", [1, 50_000, 200_000, 10**9])
def test_shards_hold_the_same_and_no_more_than_they_may(source, tmp_path, limit):
    whole = parameters(convert(source, tmp_path / "whole", options=ConvertOptions(scheme=Scheme())))
    folder = convert(
        source, tmp_path / "shards", options=ConvertOptions(scheme=Scheme(), max_shard_bytes=limit)
    )
    found = parameters(folder)
    assert all(mx.array_equal(found[name], x) for name, x in whole.items())
    files = find_weights(folder)
    assert (len(files) > 1) == (limit < 10**9)
    for path in files:
        header = read_header((path,))
        assert header.nbytes <= limit or len(header.tensors) == 1


def test_a_disk_that_is_too_small_is_found_first(source, tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(OutputError, match=r"has 1 bytes free, and the result takes \d+ (kB|MB): make room"):
        convert(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"dequantize": True}, InputError, "is not quantized: there is nothing to dequantize"),
        ({"quant_predicate": "mixed_1_2"}, InputError, "quant-predicate 'mixed_1_2' is not one of mixed_2_6"),
        ({"dequantize": True, "scheme": Scheme()}, InputError, "quantize and dequantize exclude each other"),
        ({"max_shard_bytes": 0}, InputError, "a shard must hold at least 1 byte, not 0"),
    ],
)
def test_what_cannot_be_is_refused(source, tmp_path, options, kind, message):
    with pytest.raises(kind, match=message):
        convert(source, tmp_path / "out", options=ConvertOptions(**options))
    assert list(tmp_path.iterdir()) == []


def test_a_scheme_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="mode mxfp4 has no 4 bits in groups of 64: bits 4 in groups of 32"):
        Scheme(64, 4, "mxfp4")


def test_the_arguments_are_mlx_lms(source, tmp_path):
    folder = convert(source, tmp_path / "out", quantize=True, q_bits=8, q_group_size=32)
    assert json.loads((folder / "config.json").read_text())["quantization"] == Scheme(32, 8).arguments()
    plain = convert(folder, tmp_path / "plain", dequantize=True, dtype="float16")
    assert "quantization" not in json.loads((plain / "config.json").read_text())
    mixed = convert(source, tmp_path / "mixed", quantize=True, quant_predicate="mixed_3_6")
    entry = json.loads((mixed / "config.json").read_text())["quantization"]
    assert (entry["bits"], entry["group_size"]) == (3, 64)
    assert (
        "3-bit affine, groups of 64, some layers differ, recipe mixed_3_6"
        in (mixed / "README.md").read_text()
    )


def test_details_of_no_quantization_are_refused(source, tmp_path):
    details = {"q_bits": 4, "q_group_size": 32, "q_mode": "affine", "quant_predicate": "mixed_3_6"}
    for name, value in details.items():
        flag = f"--{name.replace('_', '-')}"
        message = (
            rf"^{flag} says how to quantize, and nothing is quantized without -q \(in Python, quantize=True\)"
        )
        with pytest.raises(InputError, match=message):
            convert(source, tmp_path / "out", **{name: value})
    with pytest.raises(InputError, match=r"the recipe mixed_3_6 sets the bits: leave q_bits"):
        convert(source, tmp_path / "out", quantize=True, q_bits=4, quant_predicate="mixed_3_6")
    with pytest.raises(InputError, match=r"^quantization mode affine has no 0 bits in groups of 64"):
        convert(source, tmp_path / "out", quantize=True, q_bits=0)


def test_what_could_not_be_quantized_is_named(tmp_path):
    narrow, events = write_checkpoint(tmp_path / "narrow", TINY), []
    convert(narrow, tmp_path / "out", quantize=True, on_event=events.append)
    notices = [event.message for event in events if isinstance(event, Notice)]
    assert any(
        "not quantized, although asked for: text_model." in notice
        and "text_model.encoder.layers.{0-1}.attention.q_proj.weight" in notice
        and "(its width 48 is not a multiple of 64)" in notice
        for notice in notices
    )


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_weight_of_nan_is_not_rounded_away(source, tmp_path, calibrated):
    broken = shutil.copytree(source, tmp_path / "broken")
    tensors = mx.load(str(broken / "model.safetensors"))
    name = "vision_model.encoder.layers.1.ffn.up_proj.weight"
    tensors[name][3, 5] = float("nan")
    mx.eval(tensors)
    mx.save_safetensors(str(broken / "model.safetensors"), tensors, metadata={"format": "pt"})
    (tmp_path / "images").mkdir()
    for number, drawing in enumerate(draw(2)):
        drawing.image.save(tmp_path / "images" / f"{number}.png")
    options = ConvertOptions(scheme=Scheme(), calibrate=(str(tmp_path / "images"),) if calibrated else ())
    with pytest.raises(NonFiniteError, match=f"{name} holds NaN or infinity"):
        convert(broken, tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("packed", [False, True])
def test_no_tensor_is_held_when_all_is_written(source, tmp_path, packed):
    options = ConvertOptions(scheme=Scheme(bits=8))
    source = convert(source, tmp_path / "packed", options=options) if packed else source
    options = ConvertOptions(dequantize=True) if packed else options
    plan = plan_conversion(source, options)
    mx.clear_cache()
    before = mx.get_active_memory()
    with without_cache():
        deque(_converted(plan, options, ignore), maxlen=0)
    assert mx.get_active_memory() - before < 100_000  # of a million


def test_the_command_line_says_the_same(source, tmp_path):
    from mlx_aimv2.cli.convert import parse_size

    assert [parse_size(text) for text in ("5GB", "500 mb", "12", "1.5k")] == [5 * 10**9, 5 * 10**8, 12, 1500]
    for text in ("", "GB", "-1", "0", "5XB"):
        with pytest.raises(InputError, match="is not a size: write 5GB or 500MB"):
            parse_size(text)
