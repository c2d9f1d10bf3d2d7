"""`mlx-aimv2 models`: the published checkpoints."""

from __future__ import annotations

import json as jsonlib
import shutil
import sys
from typing import Annotated

import typer

from ..presets import BITS_AFFINE_4, BITS_FLOAT16, PRESETS, Preset
from .options import Json
from .ui import put, say, table, verb
from .words import size

WIDE = 120  # columns of a terminal that shows the repositories too


@verb
def models(
    timm: Annotated[bool, typer.Option("--timm", help="Also timm's copies.")] = False,
    json: Json = False,
) -> None:
    """List the published checkpoints: size, accuracy, patches, memory, and which are downloaded."""
    from ..checkpoints.hub import is_cached

    rows = [
        (preset, is_cached(preset.repo)) for preset in PRESETS if timm or not preset.repo.startswith("timm/")
    ]
    if json:
        put(jsonlib.dumps([_entry(preset, cached) for preset, cached in rows], indent=2))
        return
    headers = ["name", "params", "top-1", "patches", "float16", "4-bit", "cached", "repository"]
    cells = [_row(preset, cached) for preset, cached in rows]
    if sys.stdout.isatty() and shutil.get_terminal_size().columns < WIDE:
        headers, cells = headers[:-1], [row[:-1] for row in cells]
    table(headers, cells)
    say(
        "top-1: ImageNet-1k of the frozen trunk in percent, as published (lit: zero-shot); memory of the weights"
    )


def _row(preset: Preset, cached: bool) -> tuple[str, ...]:
    return (
        preset.name,
        f"{preset.parameters / 1e6:.0f} M",
        "" if preset.top1 is None else f"{preset.top1:.1f}",
        preset.patches_text,
        size(preset.bytes_at(BITS_FLOAT16)),
        size(preset.bytes_at(BITS_AFFINE_4)),
        "yes" if cached else "",
        preset.repo,
    )


def _entry(preset: Preset, cached: bool) -> dict[str, object]:
    return {
        "name": preset.name,
        "repo": preset.repo,
        "parameters": preset.parameters,
        "top1": preset.top1,
        "patches": preset.num_patches,
        "float16_bytes": preset.bytes_at(BITS_FLOAT16),
        "4bit_bytes": preset.bytes_at(BITS_AFFINE_4),
        "license": preset.license,
        "cached": cached,
    }
