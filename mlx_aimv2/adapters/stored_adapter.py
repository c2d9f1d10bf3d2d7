"""Reading a LoRA or DoRA adapter from a folder in PEFT's format, and putting it into a model.

A program that holds the model inside another module saves it under longer names: `_orig_mod.` before the names of a
compiled model, `module.` of a model on several GPUs, `vision.` or the name of any other attribute. One such prefix is
removed if all tensors share it.
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
import mlx.nn as nn

from ..checkpoints.files import inside, open_tensors, read_header
from ..checkpoints.identity import checkpoint_hash
from ..checkpoints.matching import check_fit, fold_names
from ..errors import InputError, NotACheckpointError, PickleRefusedError
from ..models.lit import Aimv2Model
from ..storage.json_files import read_json
from ..storage.swap import swapped
from .attach import adapted, encoder_of, linears, replace_module
from .lora import LAYERS, LoRALinear
from .peft_config import PeftConfig

CONFIG, TENSORS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
SAVING = ".adapter"  # the folder that holds the files of a newer adapter until they replace the old ones
ADAPTER_FILES = (CONFIG, TENSORS, PICKLE, SAVING)
PREFIX = "base_model.model."  # before every name in PEFT's files
KINDS = {"lora_A.weight": "lora_a", "lora_B.weight": "lora_b", "lora_magnitude_vector": "magnitude"}
MAGNITUDE = ("lora_magnitude_vector.weight", "lora_magnitude_vector")  # in PEFT's files, and in KINDS
OF_A_PAIR = ("vision_model.", "text_model.", "visual_projection", "text_projection")
OF_A_MODEL = ("encoder.", "embeddings.", "head.", "rms_norm.", "logit_scale", *OF_A_PAIR)
MODULE = re.compile(  # the name of a module, after the names of what wraps the model
    r"(?P<wrapper>(?:.+?\.)??)(?P<own>(?:(?:vision_model|text_model)\.)?(?:encoder\.layers\.\d+\.|head\.\w+_proj\.)\S+"
    r"|(?:visual|text)_projection\.\S+)"
)
Layers = dict[str, tuple[str, LoRALinear]]  # by the name in the file: the path in the model, and the layer


@dataclass(frozen=True)
class StoredAdapter:
    """The adapter of a folder.

    Attributes:
        folder: the folder.
        config: the contents of adapter_config.json.
        tensors: float arrays by the names in the file without `base_model.model.`, lazy.
        base: hash of the checkpoint that the adapter was trained on; None if the file has none.
        hash: of the tensors and of how they are used.
        wrapper: the prefix of the modules' names in training, such as `vision.`.
        outer: the prefix before PEFT's own, such as `module.`.
        ignored: names of tensors that belong to no encoder or pair.
    """

    folder: Path
    config: PeftConfig
    tensors: dict[str, mx.array]
    base: str | None
    hash: str
    wrapper: str = ""
    outer: str = ""
    ignored: tuple[str, ...] = ()

    def notices(self) -> list[str]:
        """What was renamed or ignored in reading the files, for the user."""
        notices = []
        if self.outer or self.wrapper:
            prefixes = " and ".join(prefix for prefix in (self.outer, self.wrapper) if prefix)
            notices.append(f"{self.folder}: {prefixes} before the name of every module is taken off")
        if self.ignored:
            names = fold_names(self.ignored)
            notices.append(f"{self.folder}: left out, for it is no part of the encoder: {names}")
        return notices

    def rank_of(self, module: str) -> int:
        """The rank of this module's adapter."""
        return self.config.rank_of(self.wrapper + module)

    def alpha_of(self, module: str) -> float:
        """The alpha of this module's adapter."""
        return self.config.alpha_of(self.wrapper + module)

    def modules(self) -> set[str]:
        """Names of the modules that have tensors in the file."""
        ends = tuple(f".{kind}" for kind in KINDS)
        return {name.removesuffix(end) for name in self.tensors for end in ends if name.endswith(end)}

    def put_on(self, model: nn.Module) -> list[str]:
        """Put the adapter into a model and freeze the model's own weights.

        Args:
            model: an `Aimv2VisionModel`, an `Aimv2Model` or a `Classifier`. An adapter of a pair's vision encoder
                fits that encoder alone, and the other way round.

        Returns:
            The paths of the adapted layers in the encoder or the pair, in order.

        Raises:
            InputError: the model has adapters already.
            MismatchError: tensors are missing, unexpected or of the wrong shape; the message names all of them.
        """
        encoder = encoder_of(model)
        if adapted(encoder):
            raise InputError("the model has adapters already: fuse them first")
        make, layers = LAYERS["dora" if self.config.dora else "lora"], {}
        for path, linear in linears(encoder).items():
            name = self._stored_name(path, encoder)
            if name is not None and self.config.adapts(self.wrapper + name):
                layer = make(
                    linear, self.rank_of(name), self.alpha_of(name), self.config.dropout, self.config.rslora
                )
                layers[name] = path, layer
        self._fill(layers)
        encoder.freeze()
        for path, layer in layers.values():
            layer.train(encoder.training)
            replace_module(encoder, path, layer)
        return [path for path, _ in layers.values()]

    def fill(self, encoder: nn.Module) -> None:
        """Copy the tensors into the adapters that an encoder or a pair already has.

        Raises:
            MismatchError: as `put_on`.
        """
        self._fill(self.layers_of(encoder))

    def layers_of(self, encoder: nn.Module) -> Layers:
        """The adapters that an encoder or a pair already has, by their names in the file."""
        return {
            self._stored_name(path, encoder) or path: (path, layer)
            for path, layer in adapted(encoder).items()
        }

    def _fill(self, layers: Layers) -> None:
        places = {
            f"{name}.{kind}": (layer, KINDS[kind])
            for name, (_, layer) in layers.items()
            for kind in KINDS
            if KINDS[kind] in layer
        }
        expected = {name: layer[key] for name, (layer, key) in places.items()}
        check_fit(expected, self.tensors, [], str(self.folder), "the model")
        for name, (layer, key) in places.items():
            layer[key] = self.tensors[name].astype(mx.float32)

    def _stored_name(self, path: str, encoder: nn.Module) -> str | None:
        """The name in the file of a layer; None for a layer that the trained model does not have."""
        of_pair = any(name.startswith(OF_A_PAIR) for name in self.tensors)
        if of_pair == isinstance(encoder, Aimv2Model):
            return path
        if of_pair:
            return f"vision_model.{path}"
        return path.removeprefix("vision_model.") if path.startswith("vision_model.") else None


def read_stored(folder: Path) -> StoredAdapter:
    """Read the adapter of a folder, without comparing it with a model.

    Raises:
        NotACheckpointError: a file is missing.
        PickleRefusedError: the tensors are pickled.
        ConfigError: adapter_config.json is damaged, or not supported.
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
    shared = wrapper_of(opened)
    prefix = shared or PREFIX
    names = {name: name.removeprefix(prefix).replace(*MAGNITUDE) for name in opened}
    ignored = [] if shared is None else sorted(
        name for name in opened if not (name.startswith(prefix) and names[name].startswith(OF_A_MODEL))
    )  # fmt: skip
    saved = data.get("modules_to_save")
    if isinstance(saved, list) and saved and all(_names_any(module, ignored) for module in saved):
        data = {**data, "modules_to_save": None}  # all of it is ignored
    config = PeftConfig.from_dict(data, str(places[CONFIG]))
    used = dataclasses.asdict(config) | {"source": None, "base_name": None}
    del used["base_revision"]
    used_json = json.dumps([used], sort_keys=True)
    return StoredAdapter(
        folder=folder,
        config=config,
        tensors={names[name]: x for name, x in opened.items() if name not in ignored},
        base=header.metadata.get("base") or None,
        hash=hashlib.sha256(f"{checkpoint_hash(header)} {used_json}".encode()).hexdigest()[:16],
        wrapper=prefix.rpartition(PREFIX)[2],
        outer=prefix.partition(PREFIX)[0],
        ignored=tuple(ignored),
    )


def wrapper_of(names: Iterable[str]) -> str | None:
    """The prefix of the names of all modules of an encoder or a pair; None where they have different ones."""
    wrappers = {match["wrapper"] for name in names if (match := MODULE.fullmatch(name))}
    return wrappers.pop() if len(wrappers) == 1 and all(PREFIX in wrapper for wrapper in wrappers) else None


def _names_any(module: object, names: Iterable[str]) -> bool:
    """Whether one of the names is that of a tensor in the module."""
    return any(f".{module}." in f".{name}" for name in names)
