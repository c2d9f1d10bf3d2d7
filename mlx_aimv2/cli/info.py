"""`mlx-aimv2 info`: a description of a checkpoint, or of this machine."""

from __future__ import annotations

import json as jsonlib
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ..checkpoints.load_options import FileOptions
from ..errors import InputError
from ..messages import counted, size
from ..options.fields import like, option
from ..processing.image_config import RESAMPLE_NAMES
from .completion import checkpoints
from .guard import NOT_ALL_DONE, verb
from .model_options import JsonOptions
from .output import put
from .screen import screen
from .tables import table


@dataclass(frozen=True)
class InfoOptions:
    """What to describe, and how to print it."""

    system: bool = option(False, "Describe this machine instead.")
    json: bool = like(JsonOptions, "json")


@verb
def info(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A checkpoint folder, a repository, or a short name.", autocompletion=checkpoints
        ),
    ] = None,
    *,
    files: FileOptions,
    options: InfoOptions,
) -> None:
    """Describe a checkpoint (layout, configuration, size, what is missing) or, with --system, this machine."""
    from ..backend.device import require_mlx

    if model is None and not options.system:
        raise InputError("name a checkpoint, or ask for --system")
    if model is not None and options.system:
        raise InputError("--system describes this machine: leave it out, or the checkpoint")
    require_mlx()
    if model is None:
        from ..backend.blas import divide_threads
        from ..backend.device import on_cpu
        from ..benchmarking.machine import describe_machine
        from ..benchmarking.peak import product_rate

        facts = describe_machine().to_dict() | {
            "matmul_gflops": round(product_rate() / 1e9, 1),
            "streams": divide_threads() if on_cpu() else 1,
        }
        rows = _system_rows(facts)
    else:
        from ..describe import describe_checkpoint
        from ..loading import inspect

        with screen() as events:
            facts = describe_checkpoint(inspect(model, files.revision, files.weights, events))
        rows = _checkpoint_rows(facts)
    if options.json:
        put(jsonlib.dumps(facts, indent=2))
    else:
        table(("what", "value"), rows)
    if facts.get("problem"):
        raise SystemExit(NOT_ALL_DONE)


def _system_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    memory = facts["memory_bytes"]
    extras = ", ".join(
        f"{name} {'yes' if installed else 'no'}" for name, installed in facts["extras"].items()
    )
    return [
        ("mlx-aimv2", facts["mlx_aimv2"]),
        ("MLX", facts["mlx"]),
        ("Python", facts["python"]),
        ("NumPy, Pillow", f"{facts['numpy']}, {facts['pillow']}"),
        ("system", f"{facts['system']} ({facts['platform']})"),
        ("CPU", f"{facts['cpu']}, {counted(facts['cores'], 'core')}"),
        ("GPU", facts["gpu"] or "none that MLX can use"),
        ("MLX computes on", facts["device"]),
        ("memory", size(memory) if memory else "unknown"),
        ("BLAS", facts["blas"]),
        ("work divided over", counted(facts["streams"], "stream")),
        ("matrix product", f"{facts['matmul_gflops']} GFLOP/s in {facts['dtype']}"),
        ("optional extras", extras),
    ]


def _checkpoint_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    vision = facts["config"].get("vision_config", facts["config"])
    resolution = "native" if vision["is_native"] else f"{vision['image_size']} pixels"
    dtypes = ", ".join(f"{name} ({count})" for name, count in facts["dtypes"].items())
    rows = [
        ("checkpoint", facts["source"]),
        ("revision", facts["revision"]),
        ("folder", facts["folder"]),
        ("files", ", ".join(facts["files"])),
        ("kind", facts["kind"]),
        ("layout", facts["layout"]),
        ("resolution", f"{resolution}, patches of {vision['patch_size']}"),
        ("vision", _tower(vision) + (", pooling head" if vision["use_head"] else "")),
        ("text", _tower(facts["config"]["text_config"]) if "text_config" in facts["config"] else None),
        ("parameters", f"{facts['parameters']:,}"),
        ("stored as", f"{dtypes}, {size(facts['bytes'])}"),
        ("quantization", facts["quantization"] or "none"),
        ("memory", ", ".join(f"{size(n)} in {dtype}" for dtype, n in facts["memory"].items())),
        ("images", _images(facts["images"])),
        ("missing files", ", ".join(facts["missing_files"]) or "none"),
        ("problem", facts["problem"] or "none"),
    ]
    return [(name, value) for name, value in rows if value is not None]


def _images(images: dict[str, Any] | None) -> str | None:
    """How images are preprocessed, and the file that says so."""
    if images is None:
        return None
    size, crop = images["size"], images["crop_size"]
    steps = []
    if images["do_resize"]:
        edges = {"shortest_edge": "short edge to {}", "longest_edge": "long edge to {}"}
        target = next((text.format(size[key]) for key, text in edges.items() if key in size), None)
        target = target or f"to {size['width']} x {size['height']}"
        steps.append(f"resized, {target} ({RESAMPLE_NAMES[images['resample']]})")
    if images["do_center_crop"]:
        steps.append(f"cut to {crop['width']} x {crop['height']}")
    if images["do_normalize"]:
        mean, std = (
            ", ".join(f"{value:.4g}" for value in images[key]) for key in ("image_mean", "image_std")
        )
        steps.append(f"mean {mean}, std {std}")
    source = images["source"] or "no file: the published settings"
    return f"{'; '.join(steps) or 'as they are'} ({source})"


def _tower(config: dict[str, Any]) -> str:
    return (
        f"{config['num_hidden_layers']} layers, width {config['hidden_size']},"
        f" MLP {config['intermediate_size']}, {config['num_attention_heads']} heads"
    )
