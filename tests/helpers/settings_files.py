"""Image settings that differ from the defaults, and their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlx_aimv2.config import Aimv2VisionConfig

VISION = Aimv2VisionConfig(image_size=56, use_head=False)


UNUSUAL = {
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 60},
    "resample": 2,
    "do_center_crop": True,
    "crop_size": {"height": 56, "width": 56},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
    "image_processor_type": "CLIPImageProcessor",
}


TIMM = {
    "input_size": [3, 56, 56],
    "crop_pct": 0.9,
    "interpolation": "bilinear",
    "mean": [0.1] * 3,
    "std": [0.7] * 3,
}


def write_settings_files(folder: Path, **files: dict[str, Any]) -> Path:
    for name, data in files.items():
        (folder / f"{name}.json").write_text(json.dumps(data))
    return folder
