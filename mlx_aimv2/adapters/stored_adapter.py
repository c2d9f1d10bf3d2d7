"""An adapter folder in PEFT's format, read: its configuration, its tensors, and what was wrapped around its model.

Programs save a model under the names of whatever holds it: `_orig_mod.` of a compiled one, `module.` of one spread
over several GPUs, `vision.` or any other attribute of a class of one's own. One such prefix, which all tensors share,
is taken off.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from ..checkpoints.files import inside, open_tensors, read_header
from ..checkpoints.identity import checkpoint_hash
from ..checkpoints.matching import fold_names
from ..errors import NotACheckpointError, PickleRefusedError
from ..storage.json_files import read_json
from ..storage.swap import swapped
from .peft_config import PeftConfig

CONFIG, TENSORS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
SAVING = ".adapter"  # a folder in which files of a newer adapter wait to be moved to their places
PREFIX = "base_model.model."  # of every name in PEFT's files
KINDS = {"lora_A.weight": "lora_a", "lora_B.weight": "lora_b", "lora_magnitude_vector": "magnitude"}
TOWER_PREFIXES = ("vision_model.", "text_model.", "visual_projection", "text_projection")
OWN = re.compile(  # the module that a tensor's name ends with, and before it what is wrapped around the model
    r"(?P<wrapper>(?:.+?\.)??)(?P<own>(?:(?:vision_model|text_model)\.)?(?:encoder\.layers\.\d+\.|head\.\w+_proj\.)\S+"
    r"|(?:visual|text)_projection\.\S+)"
)
MAGNITUDE = ("lora_magnitude_vector.weight", "lora_magnitude_vector")  # there, and as in KINDS
PARTS = (
    "encoder.",
    "embeddings.",
    "head.",
    "rms_norm.",
    "logit_scale",
    *TOWER_PREFIXES,
)  # of an encoder or a pair


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter folder that has been read.

    Attributes:
        folder: where it lies.
        config: what its adapter_config.json says.
        tensors: float arrays by the names in the file without `base_model.model.`, lazy.
        base: hash of the checkpoint it was trained on; None where the file does not say.
        hash: of this adapter: its tensors and how they are used.
        wrapper: what the names of modules had before them in training, such as `vision.`.
        outer: what the names of tensors have before PEFT's own prefix, such as `module.`.
        outside: names of tensors that belong to no encoder or pair, and are left out.
    """

    folder: Path
    config: PeftConfig
    tensors: dict[str, mx.array]
    base: str | None
    hash: str
    wrapper: str = ""
    outer: str = ""
    outside: tuple[str, ...] = ()

    def notices(self) -> list[str]:
        """What a user should know of how it was read."""
        found = []
        if self.outer or self.wrapper:
            before = " and ".join(part for part in (self.outer, self.wrapper) if part)
            found.append(f"{self.folder}: {before} before the name of every module is taken off")
        if self.outside:
            names = fold_names(self.outside)
            found.append(f"{self.folder}: left out, for it is no part of the encoder: {names}")
        return found

    def names(self, module: str) -> bool:
        """Whether the module of this name, a linear layer, has an adapter."""
        return self.config.names(self.wrapper + module)

    def rank_of(self, module: str) -> int:
        """The rank of this module's adapter."""
        return self.config.rank_of(self.wrapper + module)

    def alpha_of(self, module: str) -> float:
        """The alpha of this module's adapter."""
        return self.config.alpha_of(self.wrapper + module)

    def of_pair(self) -> bool:
        """Whether the names are those of an image-text pair."""
        return any(name.startswith(TOWER_PREFIXES) for name in self.tensors)

    def modules(self) -> set[str]:
        """Names of the modules that have tensors here."""
        ends = tuple(f".{kind}" for kind in KINDS)
        return {name.removesuffix(end) for name in self.tensors for end in ends if name.endswith(end)}


def has_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter for the encoder, and not only a head."""
    return any((folder / name).exists() for name in (CONFIG, TENSORS, PICKLE, SAVING))


def read_stored(folder: Path) -> StoredAdapter:
    """Read an adapter folder; nothing is compared with a model yet.

    Raises:
        NotACheckpointError: a file is missing.
        PickleRefusedError: the tensors are pickled.
        ConfigError: adapter_config.json is damaged, or says what this package cannot do.
        DamagedFileError: the tensors are damaged.
    """
    places = {name: swapped(inside(folder, name), folder / SAVING) for name in (CONFIG, TENSORS)}
    for name, path in places.items():
        if path.is_file():
            continue
        if name == TENSORS and (folder / PICKLE).exists():
            raise PickleRefusedError(
                f"{folder} holds pickled tensors ({PICKLE}), which can run code when opened: have PEFT write"
                f" {TENSORS}, with save_pretrained(..., safe_serialization=True)"
            )
        raise NotACheckpointError(f"{folder} is no adapter: it lacks {name}")
    data, header = read_json(places[CONFIG]), read_header((places[TENSORS],))
    opened = open_tensors(header)
    found = wrapper_of(opened)
    before = found or PREFIX
    named = {name: name.removeprefix(before).replace(*MAGNITUDE) for name in opened}
    outside = sorted(name for name in named if not _is_inside(name, before)) if found else []
    saved = data.get("modules_to_save")
    if isinstance(saved, list) and saved and all(_names_any(module, outside) for module in saved):
        data = {**data, "modules_to_save": None}  # all of it is left out
    config = PeftConfig.from_dict(data, str(places[CONFIG]))
    used = json.dumps([dataclasses.asdict(config) | {"source": None, "base_name": None}], sort_keys=True)
    digest = hashlib.sha256(f"{checkpoint_hash(header)} {used}".encode()).hexdigest()[:16]
    return StoredAdapter(
        folder=folder,
        config=config,
        tensors={named[name]: x for name, x in opened.items() if name not in outside},
        base=header.metadata.get("base") or None,
        hash=digest,
        wrapper=before.rpartition(PREFIX)[2],
        outer=before.partition(PREFIX)[0],
        outside=tuple(outside),
    )


def wrapper_of(names: Iterable[str]) -> str | None:
    """What stands before the names of an encoder's or a pair's modules; None where that is not the same for all."""
    found = {match["wrapper"] for name in names if (match := OWN.fullmatch(name))}
    return found.pop() if len(found) == 1 and all(PREFIX in wrapper for wrapper in found) else None


def _is_inside(name: str, before: str) -> bool:
    """Whether a tensor is of the encoder or the pair."""
    return name.startswith(before) and name.removeprefix(before).startswith(PARTS)


def _names_any(module: object, names: Iterable[str]) -> bool:
    """Whether a module of this name is part of any of these names."""
    return any(f".{module}." in f".{name}" for name in names)
