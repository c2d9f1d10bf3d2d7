"""An adapter written to disk, and put on a model from there, in PEFT's format.

PEFT opens what is written here, and what PEFT wrote can be read here. The hash of the base travels in the metadata
of the tensor file, where no other program minds it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..checkpoints.identity import Origin
from ..checkpoints.matching import check_fit
from ..checkpoints.shards import Entry, header_bytes, planned_bytes
from ..errors import InputError, OutputError
from ..models.lit import Aimv2Model
from ..storage.atomic import replacing
from ..storage.swap import replacing_together
from .attach import AdapterConfig, adapted, encoder_of, linears, replace_module
from .base_check import require_base
from .lora import LAYERS, LoRALinear
from .stored_adapter import CONFIG, KINDS, PREFIX, SAVING, TENSORS, StoredAdapter, read_stored

PARENT_LIBRARY = "transformers.models.aimv2.modeling_aimv2"
LAYER = re.compile(
    r"(?P<tower>(?:vision_model|text_model)\.|)encoder\.layers\.(?P<number>\d+)\.(?P<target>.+)"
)
Layers = dict[str, tuple[str, LoRALinear]]  # by the name in the file: the path in the model, and the layer


def save_adapter(folder: Path, model: nn.Module, config: AdapterConfig, base: Origin | None) -> Path:
    """Write the adapters of a model as PEFT does; at every moment the old files are there, or the new ones.

    Args:
        folder: where to; made where it is missing, and what it held of an adapter is replaced.
        model: what `attach` was given.
        config: what `attach` was given.
        base: where the model came from; None where that is not known.

    Returns:
        ``folder``.

    Raises:
        InputError: the model has no adapters, or others than ``config`` says.
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
    """Write a safetensors file that appears whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    entries = [Entry(name, x.dtype, tuple(x.shape)) for name, x in tensors.items()]
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(header_bytes(entries, note))
        for entry in entries:
            file.write(planned_bytes(entry, entry.name, tensors[entry.name]))


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
    """How PEFT is told which modules are meant: kinds of layers where that says it all, else every name.

    Kinds are written with what they are part of: `k_proj` alone would mean the pooling head's too.
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


def apply_adapter(model: nn.Module, folder: Path, any_base: bool = False) -> list[str]:
    """Put a stored adapter into a model. The encoder is frozen, so that only the adapter could be trained on.

    Args:
        model: an `Aimv2VisionModel`, an `Aimv2Model` or a `Classifier`. An adapter of a pair's image encoder fits
            that encoder by itself, and the other way round.
        folder: as `save_adapter` or PEFT's `save_pretrained` wrote it.
        any_base: also put it on another checkpoint than it was trained on.

    Returns:
        The paths of the adapted layers in the encoder or the pair, in order.

    Raises:
        InputError: the model has adapters already, or the adapter is another base's.
        CheckpointError: the folder holds no adapter that can be read; see `read_stored`.
        MismatchError: tensors are missing, unexpected or of the wrong shape; all of them in one message.
    """
    encoder, stored = encoder_of(model), read_stored(folder)
    if adapted(encoder):
        raise InputError("the model has adapters already: fuse or detach them first")
    origin = getattr(encoder, "origin", None) or getattr(model, "origin", None)
    require_base(str(folder), stored.config.base_name, stored.base, origin, any_base)
    layers = _layers(encoder, stored)
    _fill(layers, stored)
    encoder.freeze()
    for path, layer in layers.values():
        layer.train(encoder.training)
        replace_module(encoder, path, layer)
    if origin is not None:
        encoder.origin = dataclasses.replace(origin, adapter=stored.hash)
    return [path for path, _ in layers.values()]


def fill_adapters(encoder: nn.Module, stored: StoredAdapter) -> None:
    """Put the tensors of a stored adapter into the adapters that an encoder or a pair has already.

    Raises:
        MismatchError: tensors are missing, unexpected or of the wrong shape; all of them in one message.
    """
    _fill(attached_layers(encoder, stored), stored)


def attached_layers(encoder: nn.Module, stored: StoredAdapter) -> Layers:
    """The adapters that an encoder or a pair has already, by the names that a stored adapter has for them."""
    of_pair, in_pair = stored.of_pair(), isinstance(encoder, Aimv2Model)
    named = {path: _name_there(path, in_pair, of_pair) or path for path in adapted(encoder)}
    return {named[path]: (path, layer) for path, layer in adapted(encoder).items()}


def _fill(layers: Layers, stored: StoredAdapter) -> None:
    """Put stored tensors, in float32, into adapters that have their shapes."""
    places = {
        f"{name}.{kind}": (layer, KINDS[kind])
        for name, (_, layer) in layers.items()
        for kind in KINDS
        if KINDS[kind] in layer
    }
    expected = {name: layer[key] for name, (layer, key) in places.items()}
    check_fit(expected, stored.tensors, [], str(stored.folder), "the model")
    for name, (layer, key) in places.items():
        layer[key] = stored.tensors[name].astype(mx.float32)


def _layers(encoder: nn.Module, stored: StoredAdapter) -> Layers:
    """Fresh adapters for every module that the adapter names: its name there -> (path here, layer)."""
    make = LAYERS["dora" if stored.config.dora else "lora"]
    of_pair, layers = stored.of_pair(), {}
    for path, linear in linears(encoder).items():
        name = _name_there(path, isinstance(encoder, Aimv2Model), of_pair)
        if name is not None and stored.names(name):
            rank, alpha = stored.rank_of(name), stored.alpha_of(name)
            layers[name] = path, make(linear, rank, alpha, stored.config.dropout, stored.config.rslora)
    return layers


def _name_there(path: str, in_pair: bool, of_pair: bool) -> str | None:
    """What a layer is called where the adapter was trained: in a pair, or in an image encoder by itself."""
    if in_pair == of_pair:
        return path
    if of_pair:
        return f"vision_model.{path}"
    return path.removeprefix("vision_model.") if path.startswith("vision_model.") else None
