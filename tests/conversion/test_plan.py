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
from helpers.model_fixtures import WIDE
from mlx.utils import tree_flatten

from mlx_aimv2 import LoadOptions, convert, load
from mlx_aimv2.backend.device import without_cache
from mlx_aimv2.checkpoints.files import find_weights, read_header
from mlx_aimv2.conversion.convert import _converted
from mlx_aimv2.conversion.options import ConvertOptions
from mlx_aimv2.conversion.plan import plan_conversion
from mlx_aimv2.errors import InputError, NonFiniteError, OutputError
from mlx_aimv2.events import Notice, ignore
from mlx_aimv2.fidelity.sample_drawings import draw
from mlx_aimv2.quantization.scheme import VALID, Scheme

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the notices of `warn`


SCHEMES = [
    Scheme(group, bits, mode) for mode, (groups, sizes) in VALID.items() for group in groups for bits in sizes
]
KINDS = ("vision", "native", "lit")
PACKED = LoadOptions(keep_quantized=True)


def parameters(folder, **options):
    return dict(tree_flatten(load(folder, on_event=ignore, **options)[0].parameters()))


def is_packed(path, module):
    kept = ("head.", "_projection")
    return hasattr(module, "to_quantized") and not any(part in path for part in kept)


@pytest.fixture(scope="module")
def sources(tmp_path_factory, wide_pair):
    """A vision encoder, one of native resolution, and the pair."""
    root, vision = tmp_path_factory.mktemp("kinds"), replace(TINY.vision_config, num_hidden_layers=2, **WIDE)
    native = replace(vision, is_native=True, use_head=False)
    return {
        "vision": write_checkpoint(root / "vision", vision, "apple"),
        "native": write_checkpoint(root / "native", native, "apple-mlx"),
        "lit": wide_pair,
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


def test_what_stays_has_its_reason(wide_pair):
    conversion = plan_conversion(wide_pair, ConvertOptions(scheme=Scheme()))
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


def test_dequantizing_gives_what_the_packed_weights_meant(wide_pair, tmp_path):
    packed = convert(
        wide_pair, tmp_path / "packed", dtype="float32", options=ConvertOptions(scheme=Scheme(bits=8))
    )
    plain = convert(packed, tmp_path / "plain", options=ConvertOptions(dequantize=True))
    assert "quantization" not in json.loads((plain / "config.json").read_text())
    expected, found = parameters(packed), parameters(plain)
    assert all(mx.array_equal(found[name], x) for name, x in expected.items())


def test_a_disk_that_is_too_small_is_found_first(wide_pair, tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(OutputError, match=r"has 1 bytes free, and the result takes \d+ (kB|MB): make room"):
        convert(wide_pair, tmp_path / "out")
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
def test_what_cannot_be_is_refused(wide_pair, tmp_path, options, kind, message):
    with pytest.raises(kind, match=message):
        convert(wide_pair, tmp_path / "out", options=ConvertOptions(**options))
    assert list(tmp_path.iterdir()) == []


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
def test_a_weight_of_nan_is_not_rounded_away(wide_pair, tmp_path, calibrated):
    broken = shutil.copytree(wide_pair, tmp_path / "broken")
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
def test_no_tensor_is_held_when_all_is_written(wide_pair, tmp_path, packed):
    options = ConvertOptions(scheme=Scheme(bits=8))
    source = convert(wide_pair, tmp_path / "packed", options=options) if packed else wide_pair
    options = ConvertOptions(dequantize=True) if packed else options
    plan = plan_conversion(source, options)
    mx.clear_cache()
    before = mx.get_active_memory()
    with without_cache():
        deque(_converted(plan, options, ignore), maxlen=0)
    assert mx.get_active_memory() - before < 100_000  # of a million
