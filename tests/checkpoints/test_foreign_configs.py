"""config.json in the words of others, and what of it is left behind."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_aimv2 import Aimv2VisionConfig
from mlx_aimv2.checkpoints.foreign_configs import original_config, timm_config, without_source
from mlx_aimv2.errors import InputError
from mlx_aimv2.processing.image_config import CLIP_MEAN, CLIP_STD, ImageProcessorConfig

LARGE = Aimv2VisionConfig(image_size=336, use_head=False)
USUAL = ImageProcessorConfig.default(336)


def timm_entry(**changes):
    """The image settings in the config.json for timm."""
    return timm_config(LARGE, replace(USUAL, **changes))["pretrained_cfg"]


def test_timm_finds_what_it_reads():
    assert timm_config(LARGE, USUAL) == {
        "architecture": "aimv2_large_patch14_336",
        "num_classes": 0,
        "num_features": 1024,
        "global_pool": "avg",
        "pretrained_cfg": {
            "input_size": [3, 336, 336],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(CLIP_MEAN),
            "std": list(CLIP_STD),
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 384}, {"crop_pct": 0.875, "crop_mode": "center"}),
        ({"size": (384, 384)}, {"crop_pct": 0.875, "crop_mode": "squash"}),
        ({"size": (336, 336), "do_center_crop": False}, {"crop_pct": 1.0, "crop_mode": "squash"}),
        ({"resample": 2}, {"interpolation": "bilinear"}),
        ({"resample": 1}, {"interpolation": "lanczos"}),
        ({"do_normalize": False}, {"mean": [0.0] * 3, "std": [1.0] * 3}),
        ({"do_rescale": False, "image_mean": (51.0, 102.0, 255.0)}, {"mean": [0.2, 0.4, 1.0]}),
        ({"rescale_factor": 2 / 255, "image_std": (0.5, 1.0, 2.0)}, {"std": [0.25, 0.5, 1.0]}),
    ],
    ids=str,
)
def test_timm_prepares_images_as_the_checkpoint_does(settings, words):
    assert words.items() <= timm_entry(**settings).items()


@pytest.mark.parametrize(
    "settings",
    [
        {"do_resize": False},
        {"do_center_crop": False},
        {"crop_size": (224, 224)},
        {"size": (384, 400)},
        {"size": (224, 224), "do_center_crop": False},
    ],
    ids=str,
)
def test_what_timm_cannot_do_to_images_is_refused(settings):
    with pytest.raises(
        InputError, match=r"no place for this preprocessor_config\.json.* cuts 336 x 336 pixels"
    ):
        timm_entry(**settings)


@given(st.integers(1, 4096), st.sampled_from([224, 336, 448]))
def test_timm_resizes_to_the_pixel(short, edge):
    config, settings = (
        replace(LARGE, image_size=edge),
        replace(ImageProcessorConfig.default(edge), size=short),
    )
    words = timm_config(config, settings)["pretrained_cfg"]
    assert math.floor(edge / words["crop_pct"]) == short  # as timm's `transforms_imagenet_eval` computes it


def test_a_fixed_size_of_the_first_era_is_written_and_a_native_one_is_not(variants):
    assert original_config(variants["fixed"])["image_size"] == 56
    assert "image_size" not in original_config(variants["native"])


def test_what_described_only_the_source_is_left_behind_in_every_part():
    files = {"dtype": "float16", "torch_dtype": "float16", "quantization": {"bits": 4}, "pretrained_cfg": {}}
    entry = {"note": "kept", **files, "vision_config": {"hidden_size": 64, **files}}
    assert without_source(entry) == {"note": "kept", "vision_config": {"hidden_size": 64}}
