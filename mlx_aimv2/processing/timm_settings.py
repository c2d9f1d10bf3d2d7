"""Convert timm's image settings (`pretrained_cfg` in config.json) to and from those of transformers.

Sources: timm's `data/config.py` (precedence of values), `data/transforms_factory.py` (`transforms_imagenet_eval`) and
`models/_pretrained.py` (the names).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError, InputError
from .image_config import PREPROCESSOR, RESAMPLE_NAMES, ImageProcessorConfig

CROP_PCT, CROP_MODES = 0.875, ("center", "squash", "border")
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's
DEFAULTS = {"interpolation": "bicubic", "crop_pct": CROP_PCT, "mean": MEAN, "std": STD}
OLD_KEYS = {"input_size", *DEFAULTS}  # in config.json itself, before `pretrained_cfg` existed


def timm_entries(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The image settings in timm's config.json; None for a config.json that is not timm's.

    Args:
        data: config.json, or those of its keys that do not describe the model. Older versions of timm wrote the
            entries of `pretrained_cfg` beside `architecture`.

    Raises:
        ConfigError: `pretrained_cfg` is not an object.
    """
    if "pretrained_cfg" in data:
        entries = data["pretrained_cfg"]
        if not isinstance(entries, Mapping):
            raise ConfigError(f"pretrained_cfg has to be an object, not a {type(entries).__name__}")
        return entries
    return data if "architecture" in data and OLD_KEYS & data.keys() else None


def from_timm(entries: Mapping[str, Any], edge: int) -> ImageProcessorConfig:
    """The settings that do what timm does in evaluation.

    Args:
        entries: the result of `timm_entries`. A missing, null, zero or empty value means timm's default.
        edge: edge of the model's input in pixels, which overrides `input_size`.

    Raises:
        ConfigError: a value has a wrong type or is out of range; the message names key and value.
    """
    values = {key: entries.get(key) or default for key, default in DEFAULTS.items()}
    mode, name, crop_pct = entries.get("crop_mode") or "center", values["interpolation"], values["crop_pct"]
    if mode not in CROP_MODES:
        raise ConfigError(f"crop_mode is {mode!r:.80}, but has to be one of {', '.join(CROP_MODES)}")
    if name not in RESAMPLE_NAMES:
        raise ConfigError(f"interpolation is {name!r:.80}, but has to be one of {', '.join(RESAMPLE_NAMES)}")
    if isinstance(crop_pct, bool) or not isinstance(crop_pct, (int, float)) or not 1e-3 <= crop_pct <= 1e5:
        raise ConfigError(f"crop_pct is {crop_pct!r:.80}, but has to be a number from 0.001 to 100000")
    scaled = math.floor(edge / crop_pct)
    sizes: dict[str, object] = {
        "center": {"shortest_edge": scaled},
        "squash": {"height": scaled, "width": scaled},
        "border": {"longest_edge": scaled},
    }
    mean, std = (x[0] if isinstance(x, list) and len(x) == 1 else x for x in (values["mean"], values["std"]))
    data = {"size": sizes[mode], "crop_size": edge, "resample": RESAMPLE_NAMES.index(name)}
    settings = ImageProcessorConfig.from_dict(
        data | {"image_mean": mean, "image_std": std, "crop_rounding": "even"}
    )
    if mode != "border":
        return settings
    fill = [min(max(round(255 * channel), 0), 255) for channel in settings.image_mean]
    return ImageProcessorConfig.from_dict(settings.to_dict() | {"crop_fill": fill})


def to_timm(settings: ImageProcessorConfig, edge: int) -> dict[str, Any]:
    """The entries of timm for the same pixels; timm divides by 255, resizes to ``edge / crop_pct`` and crops.

    The crop may differ by a pixel: timm rounds the middle to even, transformers rounds it down.

    Raises:
        InputError: timm cannot express the settings.
    """
    size, scale = settings.size, 255 * settings.rescale_factor if settings.do_rescale else 255.0
    short = size if isinstance(size, int) else size[0]
    made = settings.crop_size if settings.do_center_crop else size
    mean, std = (settings.image_mean, settings.image_std) if settings.do_normalize else ([0.0] * 3, [1.0] * 3)
    mean, std = [x / scale for x in mean], [x / scale for x in std]
    fill = tuple(round(255 * channel) for channel in mean) if settings.longest else (0, 0, 0)
    fits = settings.do_resize and made == (edge, edge) and size in (short, (short, short))
    if not fits or settings.crop_fill != fill:
        raise InputError(
            f"timm has no place for this {PREPROCESSOR}: it resizes the short edge, or to a square, and cuts"
            f" {edge} x {edge} pixels out of the middle"
        )
    crop_pct = edge / short
    if math.floor(edge / crop_pct) < short:  # timm rounds down
        crop_pct = math.nextafter(crop_pct, 0)
    mode = "border" if settings.longest else "center" if isinstance(size, int) else "squash"
    return {
        "interpolation": RESAMPLE_NAMES[settings.resample],
        "crop_pct": crop_pct,
        "crop_mode": mode,
        "mean": mean,
        "std": std,
    }
