"""Writing an adapter in PEFT's format, and other tensors in safetensors files.

PEFT opens the adapters that this module writes. The hash of the base is in the metadata of the tensor file, which
other programs ignore.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..checkpoints.identity import Origin
from ..checkpoints.shards import Entry, write_safetensors
from ..errors import InputError, OutputError
from ..models.lit import Aimv2Model
from ..storage.atomic import replacing
from ..storage.swap import replacing_together
from .attach import AdapterConfig, adapted, encoder_of
from .stored_adapter import CONFIG, KINDS, PREFIX, SAVING, TENSORS

PARENT_LIBRARY = "transformers.models.aimv2.modeling_aimv2"
LAYER = re.compile(
    r"(?P<tower>(?:vision_model|text_model)\.|)encoder\.layers\.(?P<number>\d+)\.(?P<target>.+)"
)


def save_adapter(folder: Path, model: nn.Module, config: AdapterConfig, base: Origin | None) -> Path:
    """Write the adapters of a model as PEFT does. At every moment the folder holds all old files, or all new ones.

    Args:
        folder: to write to. It is made if it does not exist; an adapter in it is replaced.
        model: as given to `attach`.
        config: as given to `attach`.
        base: the origin of the model, if known.

    Returns:
        ``folder``.

    Raises:
        InputError: the model has no adapters, or not those of ``config``.
        OutputError: the folder cannot be written.
    """
    encoder = encoder_of(model)
    layers = adapted(encoder)
    if not layers:
        raise InputError("the model has no adapters to save: attach some first")
    for path, layer in layers.items():
        if (layer.rank, layer.alpha, layer.rslora) != (config.rank, config.alpha, config.rslora):
            raise InputError(
                f"{path} has rank {layer.rank}, alpha {layer.alpha}, which is not what config says"
            )
    tensors = {
        f"{PREFIX}{path}.{kind}": layer[name].astype(mx.float32)
        for path, layer in layers.items()
        for kind, name in KINDS.items()
        if name in layer
    }
    note = {"format": "pt"} | ({"base": base.checkpoint, "base_name": base.name} if base else {})
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError.writing(folder, error) from error
    entry = _config_entry(encoder, list(layers), config, base)
    with replacing_together(folder / SAVING, CONFIG) as partial:
        write_tensors(partial / TENSORS, tensors, note)
        with replacing(partial / CONFIG) as file:
            file.write_text(json.dumps(entry, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return folder


def write_tensors(path: Path, tensors: Mapping[str, mx.array], note: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    entries = [Entry(name, x.dtype, tuple(x.shape)) for name, x in tensors.items()]
    with replacing(path) as partial, partial.open("wb") as file:
        write_safetensors(file, entries, iter(tensors.items()), note)


def _config_entry(
    encoder: nn.Module, paths: list[str], config: AdapterConfig, base: Origin | None
) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": None,
        "auto_mapping": {"base_model_class": type(encoder).__name__, "parent_library": PARENT_LIBRARY},
        "base_model_name_or_path": base.name if base else None,
        "revision": base.revision if base else None,
        "inference_mode": True,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_dora": config.type == "dora",
        "use_rslora": config.rslora,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        **_target_entry(encoder, paths),
    }


def _target_entry(encoder: nn.Module, paths: Iterable[str]) -> dict[str, Any]:
    """The keys that tell PEFT which modules have adapters: kinds of layers where those suffice, else every name.

    Kinds are written with their parent, as `attention.k_proj`: `k_proj` alone would mean the pooling head's too.
    """
    places = [match for path in paths if (match := LAYER.fullmatch(path))]
    targets = sorted({place["target"] for place in places})
    numbers = sorted({int(place["number"]) for place in places})
    towers = sorted({place["tower"] for place in places})
    product = {
        f"{tower}encoder.layers.{n}.{target}" for tower in towers for n in numbers for target in targets
    }
    if product != set(paths):
        return {"target_modules": sorted(paths), "layers_to_transform": None, "layers_pattern": None}
    counts = {len((encoder[tower[:-1]] if tower else encoder).encoder.layers) for tower in towers}
    every = counts == {len(numbers)}
    others = [name for name in ("vision_model", "text_model") if isinstance(encoder, Aimv2Model)]
    left_out = [name for name in others if f"{name}." not in towers]
    return {
        "target_modules": targets,
        "exclude_modules": rf"{left_out[0]}\..*" if left_out else None,
        "layers_to_transform": None if every else numbers,
        "layers_pattern": None if every else "layers",
    }
