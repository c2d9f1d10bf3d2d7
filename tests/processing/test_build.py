"""Processors of converted, exported and fused checkpoints: the image settings of their source."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.settings_files import TIMM, UNUSUAL, VISION, write_settings_files
from typer.testing import CliRunner

from mlx_aimv2 import convert, export, load
from mlx_aimv2.cli.app import app
from mlx_aimv2.conversion.fuse import fuse
from mlx_aimv2.events import Notice, ignore
from mlx_aimv2.processing.image_settings import find_settings

IMAGE = np.random.default_rng(3).integers(0, 256, (101, 75, 3), dtype=np.uint8)


@pytest.fixture
def changed(
    tiny_pair: Path, tiny_vision: Path, checkpoint: Callable[..., Path], tmp_path: Path
) -> Callable[..., Path]:
    """Makes a checkpoint whose settings are in another place than preprocessor_config.json."""

    def make(place: str) -> Path:
        source = {"processor": tiny_pair, "both": tiny_vision, "timm": checkpoint("fixed", "timm")}[place]
        folder = Path(shutil.copytree(source, tmp_path / place))
        if place != "both":
            (folder / "preprocessor_config.json").unlink()
        if place == "timm":
            data = json.loads((folder / "config.json").read_text())
            words = TIMM | {"crop_mode": "border"}
            return write_settings_files(
                folder, config=data | {"architecture": "aimv2_large_patch14_224", "pretrained_cfg": words}
            )
        return write_settings_files(
            folder, processor_config={"image_processor": UNUSUAL, "processor_class": "CLIPProcessor"}
        )

    return make


def pixels(folder: Path) -> np.ndarray:
    notices: list[str] = []
    _, processor = load(folder, on_event=lambda event: notices.append(getattr(event, "message", "")))
    assert not any("are used" in notice for notice in notices)
    return processor.image_processor(IMAGE)


@pytest.mark.parametrize("place", ["processor", "both", "timm"])
def test_conversions_and_exports_prepare_images_as_their_source(
    changed: Callable[..., Path], place: str
) -> None:
    source = changed(place)
    expected = pixels(source)
    converted = convert(source, source.parent / "converted")
    assert (converted / "preprocessor_config.json").is_file()
    results = [
        converted,
        export(source, source.parent / "exported", on_event=ignore),
        convert(converted, source.parent / "again"),
    ]
    for folder in results:
        assert np.array_equal(pixels(folder), expected)
        assert find_settings(folder, VISION).source != "config.json (pretrained_cfg)"
    (converted / "processor_config.json").unlink(missing_ok=True)  # which an older transformers does not read
    assert np.array_equal(pixels(converted), expected)


@pytest.mark.parametrize("place", ["both", "timm"])
def test_fused_checkpoints_prepare_images_as_their_base(
    changed: Callable[..., Path], with_adapter: Callable[..., Any], place: str
) -> None:
    source = changed(place)
    with_adapter(source, source.parent / "adapter")
    fused = fuse(source, source.parent / "adapter", source.parent / "fused", on_event=ignore)
    assert np.array_equal(pixels(fused), pixels(source))


def test_info_says_how_images_are_prepared_and_where_it_is_written(changed: Callable[..., Path]) -> None:
    folder = changed("processor")
    told = json.loads(CliRunner().invoke(app, ["info", str(folder), "--json"]).stdout)
    assert told["images"]["source"] == "processor_config.json (image_processor)"
    assert told["images"]["image_mean"] == [0.1, 0.2, 0.3] and told["images"]["size"] == {"shortest_edge": 60}
    assert told["missing_files"] == [] and told["problem"] is None
    shown = " ".join(CliRunner().invoke(app, ["info", str(changed("timm"))]).stdout.split())
    assert "long edge to 62" in shown and "bilinear" in shown and "pretrained_cfg" in shown


def test_embed_says_where_defaults_stand_in(tiny_vision: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_vision, tmp_path / "vision")
    (folder / "preprocessor_config.json").unlink()
    notices: list[Any] = []
    load(folder, on_event=notices.append)
    assert [type(notice) for notice in notices] == [Notice]
    convert(folder, tmp_path / "converted", on_event=notices.append)
    assert sum("published ones for 56 pixels are used" in str(notice) for notice in notices) == 2


def test_export_says_what_transformers_does_otherwise(changed: Callable[..., Path], tmp_path: Path) -> None:
    notices: list[Any] = []
    export(changed("timm"), tmp_path / "out", on_event=notices.append)
    assert (
        Notice(
            "transformers has no size.longest_edge, crop_fill, crop_rounding, which is in preprocessor_config.json:"
            " its images will be cut otherwise"
        )
        in notices
    )
