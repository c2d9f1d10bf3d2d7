"""Names of the files of a checkpoint, in a folder or in a repository on the Hub, and the choice of weight files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import Advice, DamagedFileError, NotACheckpointError, PickleRefusedError

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
SINGLE, APPLE_MLX = "model.safetensors", "mlx_model.safetensors"
NPZ = ("model.npz", "weights.npz")  # as older MLX examples write
FLAX, PICKLED = "flax_model.msgpack", "pytorch_model.bin"
SMALL_FILES = (  # beside the weights: configuration, tokenizer, licence, card
    CONFIG, "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "LICENSE", "LICENSE.md",
    "LICENSE.txt", "README.md",
)  # fmt: skip
WEIGHT_SUFFIXES = (".safetensors", ".npz", ".msgpack")
PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl")
_SHARD = re.compile(r"model-\d{5,}-of-\d{5,}\.safetensors", re.ASCII)


def shard_name(number: int, count: int) -> str:
    """The name of a shard; ``number`` counts from 0."""
    return f"model-{number + 1:05d}-of-{count:05d}.safetensors"


def is_written_name(name: str) -> bool:
    """Whether this package writes weights, or their index, under such a name."""
    return name in (SINGLE, INDEX, NPZ[0]) or _SHARD.fullmatch(name) is not None


def small_files(names: Iterable[str]) -> list[str]:
    """The files among ``names`` that a checkpoint needs beside its weights, sorted; none from subfolders."""
    return sorted(set(names) & set(SMALL_FILES))


def choose_weights(names: Collection[str], source: str, weights: str | None = None) -> str:
    """The file with the weights, or the index of its shards.

    Args:
        names: all files of the checkpoint.
        source: the name of the checkpoint in messages.
        weights: a file to choose; None for `model.safetensors`, then the index of shards, then Apple's
            `mlx_model.safetensors`, then the only safetensors file; without any, `model.npz`, `weights.npz` or the
            only .npz; at last Apple's `flax_model.msgpack`.

    Raises:
        NotACheckpointError: there are no weights, or several files of weights.
        PickleRefusedError: there are only pickled weights, or ``weights`` is pickled.
    """
    listing = ", ".join(sorted(names)[:8]) or "nothing"
    if weights is not None:
        if weights not in names:
            raise NotACheckpointError(f"{source} lacks the weight file {weights}: found {listing}")
        if weights.endswith(PICKLES):
            raise PickleRefusedError(f"{source}: these are {_pickled([weights])}")
        return weights
    for usual, suffix in (((SINGLE, INDEX, APPLE_MLX), ".safetensors"), (NPZ, ".npz"), ((FLAX,), ".msgpack")):
        for name in usual:
            if name in names:
                return name
        others = sorted(name for name in names if name.endswith(suffix) and "/" not in name)
        if len(others) == 1:
            return others[0]
        if others:
            which = f" and no {INDEX}" if suffix == ".safetensors" else ""
            raise NotACheckpointError(
                f"{source} holds {len(others)} weight files ({', '.join(others[:5])}){which}",
                Advice(
                    "name one with {}",
                    "weights",
                    otherwise="keep the one that is meant, without the others, in a folder",
                ),
            )
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    if pickles:
        raise PickleRefusedError(f"{source} holds only {_pickled(pickles)}")
    raise NotACheckpointError(
        f"{source} is no checkpoint: looked for {SINGLE}, {INDEX} with its shards, {APPLE_MLX}, {', '.join(NPZ)},"
        f" {FLAX}; found {listing}"
    )


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder looks like a checkpoint: weights of a usual name, or any weights beside a config.json.

    Pickled weights count, so that loading refuses them by name; a folder of vectors does not.
    """
    try:
        names = {entry.name for entry in folder.iterdir()}
    except OSError:
        return True  # opening it says what is wrong
    if any(is_written_name(name) or name in (APPLE_MLX, FLAX, PICKLED, *NPZ) for name in names):
        return True
    return CONFIG in names and any(name.endswith((*WEIGHT_SUFFIXES, *PICKLES)) for name in names)


def _pickled(names: list[str]) -> str:
    return (
        f"pickled weights ({', '.join(names[:3])}), which can run code when opened: have"
        " https://huggingface.co/spaces/safetensors/convert make a model.safetensors of them, or take a"
        " revision that has one"
    )


def shard_names(index: Mapping[str, Any], source: str) -> list[str]:
    """The names of the shards in an index, sorted.

    Raises:
        DamagedFileError: it is no index of shards, or names something else than safetensors files beside it.
    """
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise DamagedFileError(f"{source} is not an index of safetensors shards: no weight_map in it")
    for name in weight_map.values():
        if not isinstance(name, str) or not name.endswith(".safetensors") or {"/", "\\", "\0"} & set(name):
            raise DamagedFileError(f"{source} names {name!r}, which is not a safetensors file beside it")
    return sorted(set(weight_map.values()))
