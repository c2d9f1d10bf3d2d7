"""`mlx-aimv2 models`: the checkpoint inside the package, and the published ones."""

from __future__ import annotations

import json as jsonlib
import shutil
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..messages import size
from ..presets import BITS_AFFINE_4, BITS_FLOAT16, DEMO_MODEL, PRESETS, Preset
from .guard import verb
from .model_options import Json
from .output import put, say
from .tables import table

if TYPE_CHECKING:
    from ..checkpoints.bundled import BundledSizes

WIDE = 120  # columns of a terminal that shows the repositories too


@verb
def models(
    timm: Annotated[bool, typer.Option("--timm", help="Also timm's copies.")] = False,
    json: Json = False,
) -> None:
    """List demo and the published checkpoints: size, accuracy, patches, memory, and which are downloaded."""
    from ..checkpoints.bundled import bundled_sizes
    from ..checkpoints.resolve import is_cached

    demo = bundled_sizes()
    rows = [
        (preset, is_cached(preset.repo)) for preset in PRESETS if timm or not preset.repo.startswith("timm/")
    ]
    if json:
        entries = [_demo_entry(demo)] if demo else []
        entries += [_entry(preset, cached) for preset, cached in rows]
        put(jsonlib.dumps(entries, indent=2))
        return
    headers = ["name", "params", "top-1", "patches", "float16", "4-bit", "cached", "repository"]
    cells = [_demo_row(demo)] if demo else []
    cells += [_row(preset, cached) for preset, cached in rows]
    if sys.stdout.isatty() and shutil.get_terminal_size().columns < WIDE:
        headers, cells = headers[:-1], [row[:-1] for row in cells]
    table(headers, cells)
    say("top-1: ImageNet-1k of the frozen trunk in percent (lit: zero-shot)")
    say("float16, 4-bit: memory of the weights")


def _demo_row(demo: BundledSizes) -> tuple[str, ...]:
    return (
        DEMO_MODEL,
        f"{demo.parameters / 1e6:.0f} M",
        "",
        str(demo.num_patches),
        size(demo.bytes_at(BITS_FLOAT16)),
        size(demo.bytes_at(BITS_AFFINE_4)),
        "yes",
        f"inside the package, {size(demo.nbytes)}",
    )


def _demo_entry(demo: BundledSizes) -> dict[str, object]:
    return {
        "name": DEMO_MODEL,
        "repo": None,
        "parameters": demo.parameters,
        "top1": None,
        "patches": demo.num_patches,
        "float16_bytes": demo.bytes_at(BITS_FLOAT16),
        "4bit_bytes": demo.bytes_at(BITS_AFFINE_4),
        "bytes": demo.nbytes,
        "license": "mit",
        "cached": True,
    }


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
