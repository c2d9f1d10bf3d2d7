"""timm's words for what is done to an image, held against timm's own steps, done by hand with Pillow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlx_aimv2.errors import ConfigError, InputError
from mlx_aimv2.processing.image import ImageProcessor
from mlx_aimv2.processing.image_config import ImageProcessorConfig
from mlx_aimv2.processing.timm_settings import from_timm, timm_entries, to_timm

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
MEAN, STD = [0.25, 0.5, 0.125], [0.2, 0.3, 0.4]


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)
    )


def cut(image: Image.Image, edge: int, fill: tuple[int, ...]) -> Image.Image:
    """torchvision's CenterCrop, and timm's CenterCropOrPad: borders first, then the middle, rounded to even."""
    left, top = (max(edge - side, 0) // 2 for side in image.size)
    canvas = Image.new("RGB", (max(image.width, edge), max(image.height, edge)), fill)
    canvas.paste(image, (left, top))
    x, y = (round((side - edge) / 2.0) for side in canvas.size)
    return canvas.crop((x, y, x + edge, y + edge))


def by_hand(image: Image.Image, words: dict[str, Any], edge: int) -> np.ndarray:
    """timm's `transforms_imagenet_eval`, step by step."""
    scaled, (width, height) = math.floor(edge / words["crop_pct"]), image.size
    fill: tuple[int, ...] = (0, 0, 0)
    if words["crop_mode"] == "squash":
        size = scaled, scaled
    elif words["crop_mode"] == "border":
        ratio = max(height / scaled, width / scaled)
        size = round(width / ratio), round(height / ratio)
        fill = tuple(round(255 * value) for value in words["mean"])
    elif width <= height:
        size = scaled, int(scaled * height / width)
    else:
        size = int(scaled * width / height), scaled
    resized = image.resize(size, FILTERS[words["interpolation"]])
    pixels = np.asarray(cut(resized, edge, fill)).astype(np.float32) / np.float32(255)
    return (pixels - np.float32(words["mean"])) / np.float32(words["std"])


@settings(deadline=None)
@given(
    st.integers(40, 140),
    st.integers(40, 140),
    st.sampled_from([0.8, 0.875, 0.95, 1.0, 1.25]),
    st.sampled_from(["center", "squash", "border"]),
    st.sampled_from(sorted(FILTERS)),
)
def test_pixels_are_those_of_timms_own_steps(
    height: int, width: int, pct: float, mode: str, name: str
) -> None:
    words = {"crop_pct": pct, "crop_mode": mode, "interpolation": name, "mean": MEAN, "std": STD}
    image = noise(height, width)
    ours = ImageProcessor(from_timm(words, 56))(image)
    assert ours.shape == (56, 56, 3)
    np.testing.assert_allclose(ours, by_hand(image, words, 56), atol=1e-6)


def test_the_middle_is_where_timm_has_it() -> None:
    """35 pixels too many: timm leaves 18 at the top, transformers 17."""
    image, words = noise(91, 56), {"crop_pct": 1.0, "mean": MEAN, "std": STD, "interpolation": "bicubic"}
    settings = from_timm(words, 56)
    ours = ImageProcessor(settings)(image)
    np.testing.assert_allclose(ours, by_hand(image, words | {"crop_mode": "center"}, 56), atol=1e-6)
    other = ImageProcessorConfig.from_dict(settings.to_dict() | {"crop_rounding": "down"})
    assert not np.allclose(ours, ImageProcessor(other)(image), atol=0.1)


def test_what_is_missing_has_timms_defaults() -> None:
    settings = from_timm({"crop_pct": None, "mean": [], "std": [0.5]}, 448)
    assert settings.size == 512  # 448 / 0.875
    assert (settings.resample, settings.crop_size) == (3, (448, 448))
    assert settings.image_mean == (0.485, 0.456, 0.406)  # ImageNet's, and not CLIP's
    assert settings.image_std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"crop_mode": "round"}, "crop_mode is 'round', but has to be one of center, squash, border"),
        ({"interpolation": "random"}, "interpolation is 'random', but has to be one of nearest, lanczos"),
        ({"crop_pct": "1"}, "crop_pct is '1', but has to be a number from 0.001 to 100000"),
        ({"crop_pct": -1}, "crop_pct is -1"),
        ({"crop_pct": True}, "crop_pct is True"),
        ({"crop_pct": 0.01}, "size.shortest_edge is 22400, but has to be"),
        ({"mean": [0.1, 0.2]}, "image_mean is [0.1, 0.2], but has to be three numbers"),
        ({"std": [0.1, 0.2, 0]}, "image_std is 0"),
    ],
)
def test_wrong_words_are_named(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_timm(words, 224)
    assert str(caught.value).startswith(message)


def test_which_config_json_is_timms() -> None:
    words = {"input_size": [3, 224, 224], "crop_pct": 1.0}
    assert timm_entries({"architecture": "aimv2_large_patch14_224", "pretrained_cfg": words}) == words
    older = {"architecture": "aimv2_large_patch14_224", **words}
    assert timm_entries(older) == older
    assert timm_entries({"hidden_size": 64, "image_size": 224}) is None
    assert timm_entries({"architecture": "aimv2"}) is None
    with pytest.raises(ConfigError, match="pretrained_cfg has to be an object, not a list"):
        timm_entries({"pretrained_cfg": []})


@given(
    st.integers(1, 600),
    st.sampled_from(["shortest_edge", "longest_edge", "both"]),
    st.integers(0, 5),
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
)
def test_there_and_back(short: int, kind: str, resample: int, mean: list[float]) -> None:
    size = {"height": short, "width": short} if kind == "both" else {kind: short}
    data = {"size": size, "crop_size": 224, "resample": resample, "image_mean": mean, "crop_rounding": "even"}
    if kind == "longest_edge":
        data["crop_fill"] = [round(255 * value) for value in mean]
    settings = ImageProcessorConfig.from_dict(data)
    again = from_timm(to_timm(settings, 224), 224)
    np.testing.assert_allclose(again.image_mean, settings.image_mean, atol=1e-15)
    mean_apart = {"image_mean": list(settings.image_mean)}
    assert ImageProcessorConfig.from_dict(again.to_dict() | mean_apart).same_pixels(settings)


def test_borders_of_another_colour_have_no_place_in_timm() -> None:
    data = {"size": {"longest_edge": 224}, "crop_fill": [0, 0, 0], "image_mean": 0.5}
    with pytest.raises(InputError, match="timm has no place for this"):
        to_timm(ImageProcessorConfig.from_dict(data), 224)
