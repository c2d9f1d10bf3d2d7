"""`preprocessor_config.json`: both eras, defaults, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlx_aimv2.errors import ConfigError
from mlx_aimv2.processing.image import ImageProcessor, ImageProcessorConfig

NATIVE = ImageProcessorConfig.default(224, native=True)


def test_the_defaults_are_the_published_values() -> None:
    config = ImageProcessorConfig.default(336)
    assert config == ImageProcessorConfig(size=336, crop_size=(336, 336))
    assert config.do_resize and config.do_center_crop and config.resample == 3
    assert config.image_mean == (0.48145466, 0.4578275, 0.40821073)
    assert config.image_std == (0.26862954, 0.26130258, 0.27577711)
    assert not NATIVE.do_resize and not NATIVE.do_center_crop
    with pytest.raises(ConfigError, match="image_size is 0, but has to be a whole number of pixels"):
        ImageProcessorConfig.default(0)


@pytest.mark.parametrize(
    ("data", "size", "crop_size"),
    [
        ({}, 224, (224, 224)),
        ({"size": 336, "crop_size": 336}, 336, (336, 336)),
        ({"size": {"shortest_edge": 448}, "crop_size": {"height": 448, "width": 440}}, 448, (448, 440)),
        ({"size": {"height": 20, "width": 30}, "crop_size": None}, (20, 30), (224, 224)),
        ({"size": {"shortest_edge": 448, "longest_edge": None}}, 448, (224, 224)),
        ({"size": [56, 70], "crop_size": [42, 28]}, (56, 70), (42, 28)),
        ({"size": 100, "default_to_square": True}, (100, 100), (224, 224)),
        ({"size": 100, "default_to_square": False}, 100, (224, 224)),
    ],
)
def test_sizes_of_both_eras(data: dict[str, Any], size: Any, crop_size: tuple[int, int]) -> None:
    config = ImageProcessorConfig.from_dict(data)
    assert (config.size, config.crop_size) == (size, crop_size)
    assert ImageProcessorConfig.from_dict(config.to_dict()) == config


def test_nulls_are_defaults_and_unknown_keys_are_kept(tmp_path: Path) -> None:
    data = {
        "do_resize": False,
        "do_center_crop": False,
        "crop_size": None,
        "resample": None,
        "image_mean": 0.5,
    }
    extra = {
        "image_processor_type": "CLIPImageProcessorFast",
        "data_format": "channels_first",
        "pad_size": None,
    }
    config = ImageProcessorConfig.from_dict(data | extra)
    assert config.extra == extra
    assert config.resample == 3 and config.image_mean == (0.5, 0.5, 0.5)
    assert ImageProcessor(config).is_native
    again = ImageProcessorConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config and hash(again) == hash(config)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"do_resize": 1}, "do_resize is 1, but has to be true or false"),
        ({"size": "224"}, "size is '224', but has to be a whole number of pixels from 1 to 4096"),
        ({"size": True}, "size is True"),
        ({"size": 224.5}, "size is 224.5"),
        ({"size": -1}, "size is -1"),
        ({"size": {"shortest_edge": 10**9}}, "size.shortest_edge is 1000000000"),
        (
            {"size": {"height": 5}},
            "size is {'height': 5}, but has to be a number, [height, width], {\"shortest_edge\": ...} or",
        ),
        (
            {"size": {"shortest_edge": 5, "longest_edge": 9}},
            "size is {'shortest_edge': 5, 'longest_edge': 9}",
        ),
        ({"crop_size": {"shortest_edge": 5}}, "crop_size is {'shortest_edge': 5}, but has to be a number or"),
        ({"crop_size": {"height": 0, "width": 1}}, "crop_size.height is 0"),
        ({"resample": 6}, "resample is 6, but has to be one of 0 (nearest), 1 (lanczos)"),
        ({"resample": "bicubic"}, "resample is 'bicubic'"),
        ({"rescale_factor": 0}, "rescale_factor is 0, but has to be a number from 1e-6 to 1e6"),
        ({"rescale_factor": float("nan")}, "rescale_factor is nan, but has to be a number from -1e6 to 1e6"),
        ({"rescale_factor": "1/255"}, "rescale_factor is '1/255'"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is [0.5, 0.5], but has to be three numbers"),
        ({"image_mean": [0.5, 0.5, None]}, "image_mean is None, but has to be a number"),
        ({"image_std": [1, 1, 0]}, "image_std is 0, but has to be a number from 1e-6"),
        ({"image_std": [1, 1, 1e-310]}, "image_std is 1e-310"),
    ],
)
def test_wrong_values_are_named(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ImageProcessorConfig.from_dict(data)
    assert str(caught.value).startswith(message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=5), values, max_size=3),
)


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from([*ImageProcessorConfig().to_dict(), "other"]), JSON))
def test_any_values_are_a_config_or_a_config_error(data: dict[str, Any]) -> None:
    try:
        config = ImageProcessorConfig.from_dict(data)
    except ConfigError:
        return
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert np.isfinite(ImageProcessor(config).normalize(Image.fromarray(levels))).all()
