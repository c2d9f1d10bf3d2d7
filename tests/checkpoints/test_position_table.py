"""The position table resampled: its arithmetic, and models of fixed size that take images of another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from mlx_aimv2 import Embedder, ExportOptions, convert, export, load
from mlx_aimv2.checkpoints.position_table import bicubic_weights, resample_table, table_size
from mlx_aimv2.conversion.options import ConvertOptions
from mlx_aimv2.errors import ConfigError, InputError, MismatchError
from mlx_aimv2.events import ignore
from mlx_aimv2.loading import LoadOptions, at_resolution, inspect

# torch 2.13, interpolate(torch.arange(9.).reshape(1, 1, 3, 3) ** 2, size=(5, 5), mode="bicubic"), row by row
GOLDEN = [
    -0.9047037, -0.8740149, -0.4399992, 1.074017, 2.216706,
    1.269992, 2.319147, 4.444011, 7.648876, 9.81003,
    8.328001, 11.068, 16, 22.012, 25.864,
    25.10602, 29.53687, 37.276, 46.09514, 51.63799,
    37.28871, 42.73803, 52.16801, 62.678, 69.23932,
]  # fmt: skip
IMAGE = np.random.default_rng(3).integers(0, 256, (101, 75, 3), dtype=np.uint8)
FOR_84 = LoadOptions(dtype="float32", interpolate_positions=True, image_size=84)
TABLE = "embeddings.position_embedding.weight"


@given(st.integers(1, 40), st.integers(1, 40))
def test_every_sample_is_a_mean(old: int, new: int) -> None:
    weights = bicubic_weights(old, new)
    assert weights.shape == (new, old)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    assert np.count_nonzero(weights, axis=1).max() <= 4


def test_the_same_size_changes_nothing() -> None:
    np.testing.assert_array_equal(bicubic_weights(7, 7), np.eye(7, dtype=np.float32))


def test_a_table_becomes_what_torch_makes_of_it() -> None:
    table = mx.arange(9.0)[:, None] ** 2
    found = resample_table(mx.concatenate([table, -table], axis=1), 5)
    assert found.shape == (25, 2) and found.dtype == mx.float32
    np.testing.assert_allclose(found[:, 0], GOLDEN, rtol=2e-6, atol=2e-5)
    np.testing.assert_allclose(found[:, 1], -np.array(GOLDEN), rtol=2e-6, atol=2e-5)


def changed(folder: Path, target: Path, name: str, **entries: Any) -> Path:
    shutil.copytree(folder, target)
    data = json.loads((target / name).read_text())
    (target / name).write_text(json.dumps(data | entries))
    return target


@pytest.mark.parametrize("variant", ["fixed", "lit"])
def test_a_model_takes_images_of_another_size(checkpoint, variant: str) -> None:
    folder = checkpoint(variant)
    plain, _ = load(folder, dtype="float32")
    model, processor = load(folder, options=FOR_84)
    assert processor.image_processor(IMAGE).shape == (84, 84, 3)
    before, after = (dict(tree_flatten(one.parameters())) for one in (plain, model))
    name = f"vision_model.{TABLE}" if variant == "lit" else TABLE
    for key, value in before.items():
        expected = resample_table(value, 6) if key == name else value
        assert mx.array_equal(after[key], expected), key
    vectors = Embedder(model, processor).images([IMAGE])
    assert np.isfinite(vectors).all()
    config = model.config.vision_config if variant == "lit" else model.config
    assert config.image_size == 84


def test_the_fingerprint_tells_the_sizes_apart(tiny_vision: Path) -> None:
    prints = [
        Embedder(*load(tiny_vision, options=options)).fingerprint for options in (LoadOptions(), FOR_84)
    ]
    assert "image_size" not in prints[0] and prints[1]["image_size"] == 84
    assert prints[0]["checkpoint"] == prints[1]["checkpoint"]
    assert prints[0]["preprocessing"] != prints[1]["preprocessing"]


def test_the_size_is_what_the_settings_make(tiny_vision: Path, tmp_path: Path) -> None:
    folder = changed(tiny_vision, tmp_path / "x", "preprocessor_config.json", size=100, crop_size=70)
    with pytest.raises(
        ConfigError, match=r"makes images of 70 x 70 pixels.* resample .*interpolate_positions=True"
    ):
        load(folder)
    model, processor = load(folder, options=LoadOptions(interpolate_positions=True))
    assert model.config.image_size == 70
    assert processor.image_processor.config.size == 100
    model, processor = load(folder, options=FOR_84)
    assert (processor.image_processor.config.size, model.config.image_size) == (
        120,
        84,
    )  # the same part of an image


def test_a_config_of_another_size_than_the_table(tiny_vision: Path, tmp_path: Path) -> None:
    folder = changed(tiny_vision, tmp_path / "x", "config.json", image_size=84)
    with pytest.raises(
        MismatchError, match=r"table is for 56 x 56 pixels, and its config\.json says image_size 84"
    ):
        load(folder, on_event=ignore)
    for size in (84, 56):
        options = LoadOptions(interpolate_positions=True, image_size=size)
        model, _ = load(folder, options=options, on_event=ignore)
        assert model.config.image_size == size
        assert model.origin.image_size == (84 if size == 84 else None)


def test_without_the_option_another_size_is_refused(tiny_vision: Path) -> None:
    with pytest.raises(
        InputError,
        match="takes 56 x 56 pixels, not 84 on a side: resample the position table with interpolate_positions=True",
    ):
        load(tiny_vision, options=LoadOptions(image_size=84))
    assert load(tiny_vision, options=LoadOptions(image_size=56))[0].config.image_size == 56


@pytest.mark.parametrize("size", [0, 57, -14, 14 * 300, 84.0, True], ids=str)
def test_a_size_that_makes_no_sense_is_refused(tiny_vision: Path, size: Any) -> None:
    with pytest.raises(
        InputError, match=f"image_size is {size!r}, but has to be a multiple of the patch size 14"
    ):
        load(tiny_vision, options=LoadOptions(interpolate_positions=True, image_size=size))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interpolate_positions": True}, "takes any resolution as it is: leave interpolate_positions out"),
        ({"interpolate_positions": True, "image_size": 84}, "takes any resolution as it is"),
        ({"image_size": 84}, "takes any size, not 84 on a side: leave image_size out"),
    ],
)
def test_native_resolution_has_no_table(tiny_native: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(tiny_native, options=LoadOptions(**options))


@pytest.mark.parametrize("quantize", [False, True])
def test_a_conversion_keeps_the_table_that_it_resampled(
    tiny_pair: Path, tmp_path: Path, quantize: bool
) -> None:
    options = ConvertOptions(interpolate_positions=True, image_size=84)
    group = {"quantize": True, "q_group_size": 32} if quantize else {}
    folder = convert(tiny_pair, tmp_path / "84", options=options, on_event=ignore, **group)
    assert json.loads((folder / "config.json").read_text())["vision_config"]["image_size"] == 84
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    assert (settings["size"], settings["crop_size"]) == ({"shortest_edge": 84}, {"height": 84, "width": 84})
    model, processor = load(folder, dtype="float32", on_event=ignore)
    asked, other = load(tiny_pair, options=FOR_84)
    table = model.vision_model.embeddings.position_embedding.weight
    assert mx.array_equal(table, asked.vision_model.embeddings.position_embedding.weight)
    assert np.array_equal(processor.image_processor(IMAGE), other.image_processor(IMAGE))
    if not quantize:
        vectors = [Embedder(*one).images([IMAGE]) for one in ((model, processor), (asked, other))]
        assert np.array_equal(*vectors)


def test_a_quantized_checkpoint_is_resampled_too(tiny_vision: Path, tmp_path: Path) -> None:
    folder = convert(tiny_vision, tmp_path / "q", quantize=True, q_group_size=32)
    model, _ = load(folder, options=FOR_84, on_event=ignore)
    plain, _ = load(tiny_vision, dtype="float32")
    expected = resample_table(plain.embeddings.position_embedding.weight, 6)
    assert mx.array_equal(model.embeddings.position_embedding.weight, expected)


def test_an_export_keeps_it_as_well(tiny_vision: Path, tmp_path: Path) -> None:
    options = ExportOptions(interpolate_positions=True, image_size=84)
    folder = export(tiny_vision, tmp_path / "out", "apple", options=options)
    again = inspect(folder)
    assert table_size(again.outline, again.config) == again.config.image_size == 84
    assert at_resolution(again, FOR_84) is again  # there is nothing to resample


def test_an_adapter_goes_with_it(tiny_vision: Path, with_adapter: Any, tmp_path: Path) -> None:
    with_adapter(tiny_vision, tmp_path / "a")
    model, processor = load(tiny_vision, adapter_path=tmp_path / "a", options=FOR_84)
    plain, _ = load(tiny_vision, options=FOR_84)
    with_it, without = (Embedder(one, processor).images([IMAGE]) for one in (model, plain))
    assert with_it.shape == without.shape and not np.allclose(with_it, without)


def test_a_report_compares_both_at_the_new_size(tiny_vision: Path, tmp_path: Path) -> None:
    from mlx_aimv2.conversion.convert import convert_and_report

    options = ConvertOptions(interpolate_positions=True, image_size=84, report=True)
    result = convert_and_report(tiny_vision, tmp_path / "84", options, on_event=ignore)
    assert result.not_compared is None and result.fidelity is not None
