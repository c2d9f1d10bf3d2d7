"""`mlx-aimv2 models`: a table of the checkpoint inside the package and of the published checkpoints."""

from __future__ import annotations

import json as jsonlib
import shutil
import sys
from dataclasses import dataclass
from typing import Any

from ..messages import size
from ..options.fields import like, option
from ..presets import BITS_AFFINE_4, BITS_FLOAT16, DEMO_MODEL, PATCH_RANGE, PRESETS
from .guard import verb
from .model_options import JsonOptions
from .output import put, say
from .tables import table

WIDE = 120  # columns of a terminal that has room for the repositories
HEADERS = ("name", "params", "top-1", "patches", "float16", "4-bit", "cached", "repository")


@dataclass(frozen=True)
class ModelsOptions:
    """What to list, and how."""

    timm: bool = option(False, "Also list timm's copies.")
    json: bool = like(JsonOptions, "json")


@verb
def models(options: ModelsOptions) -> None:
    """List demo and the published checkpoints: size, accuracy, patches, memory, and which are downloaded."""
    entries = [*_demo_entries(), *_published_entries(options.timm)]
    if options.json:
        put(jsonlib.dumps(entries, indent=2))
        return
    is_narrow = sys.stdout.isatty() and shutil.get_terminal_size().columns < WIDE
    count = len(HEADERS) - is_narrow
    table(HEADERS[:count], [_row(entry)[:count] for entry in entries])
    say("top-1: ImageNet-1k of the frozen trunk in percent (lit: zero-shot)")
    say("float16, 4-bit: memory of the weights")


def _demo_entries() -> list[dict[str, Any]]:
    """The checkpoint inside the package, unless it is missing."""
    from ..checkpoints.bundled import bundled_sizes

    demo = bundled_sizes()
    if demo is None:
        return []
    return [
        {
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
    ]


def _published_entries(timm: bool) -> list[dict[str, Any]]:
    from ..checkpoints.resolve import is_cached

    return [
        {
            "name": preset.name,
            "repo": preset.repo,
            "parameters": preset.parameters,
            "top1": preset.top1,
            "patches": preset.num_patches,
            "float16_bytes": preset.bytes_at(BITS_FLOAT16),
            "4bit_bytes": preset.bytes_at(BITS_AFFINE_4),
            "license": preset.license,
            "cached": is_cached(preset.repo),
        }
        for preset in PRESETS
        if timm or not preset.repo.startswith("timm/")
    ]


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    return (
        entry["name"],
        f"{entry['parameters'] / 1e6:.0f} M",
        "" if entry["top1"] is None else f"{entry['top1']:.1f}",
        "{} to {}".format(*PATCH_RANGE) if entry["patches"] is None else str(entry["patches"]),
        size(entry["float16_bytes"]),
        size(entry["4bit_bytes"]),
        "yes" if entry["cached"] else "",
        entry["repo"] or f"inside the package, {size(entry['bytes'])}",
    )
