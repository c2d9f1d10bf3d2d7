"""Reading PEFT's `adapter_config.json`, and matching its names with the modules of a model.

Keys, their meaning, and the order of names, patterns and exclusions follow PEFT's documentation and the files that it
writes (`LoraConfig`, versions up to 0.21).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..errors import ConfigError
from .attach import is_number, is_whole
from .targets import MAX_RANK

ALL_LINEAR = "all-linear"
# initial values of A and B that leave the base unchanged
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva", "mica")
MAX_PATTERN = 1000  # characters
MAX_REPEATS = 4  # unlimited repetitions in a pattern, each of which multiplies the time
N = TypeVar("N", int, float)
FOREIGN = {  # not supported here; absent or empty in most files
    "modules_to_save": "whole modules trained beside the adapter",
    "lora_bias": "a bias in B",
    "fan_in_fan_out": "transposed weights",
    "layer_replication": "layers that are used several times",
    "target_parameters": "parameters adapted by name",
    "trainable_token_indices": "trained tokens",
    "megatron_config": "Megatron's parallel layers",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "velora_config": "VeLoRA",
}


@dataclass(frozen=True)
class PeftConfig:
    """The keys of adapter_config.json that this package uses.

    Attributes:
        source: the file, for messages.
        rank: of modules that are not in ``rank_pattern``.
        alpha: of modules that are not in ``alpha_pattern``.
        dropout: of the adapters' input, in training.
        dora: whether the adapter is DoRA.
        rslora: whether to scale by the root of the rank.
        targets: ends of names of adapted modules, or a pattern for whole names.
        excludes: the same for modules without an adapter.
        layers: numbers of layers; None for all.
        layers_patterns: names of the lists of layers; empty for any name.
        rank_pattern: other ranks, by the end of a module's name.
        alpha_pattern: other alphas, by the end of a module's name.
        base_name: repository or folder of the base.
        base_revision: commit of the repository.
    """

    source: str
    rank: int
    alpha: float
    dropout: float
    dora: bool
    rslora: bool
    targets: tuple[str, ...] | str
    excludes: tuple[str, ...] | str = ()
    layers: tuple[int, ...] | None = None
    layers_patterns: tuple[str, ...] = ()
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    base_name: str | None = None
    base_revision: str | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str) -> PeftConfig:
        """Read the keys of the file; unknown keys are ignored.

        Raises:
            ConfigError: the method is not LoRA, a feature is not supported, or a value is not valid.
        """
        _check_kind(data, source)
        read = _Reader(data, source)
        return cls(
            source=source,
            rank=read.rank("r", data.get("r", 8)),
            alpha=read.positive("lora_alpha", data.get("lora_alpha", 8)),
            dropout=read.dropout("lora_dropout"),
            dora=read.switch("use_dora"),
            rslora=read.switch("use_rslora"),
            targets=read.names("target_modules"),
            excludes=read.names("exclude_modules"),
            layers=read.layers("layers_to_transform"),
            layers_patterns=read.list_names("layers_pattern"),
            rank_pattern=read.table("rank_pattern", read.rank),
            alpha_pattern=read.table("alpha_pattern", read.positive),
            base_name=str(data.get("base_model_name_or_path") or "") or None,
            base_revision=str(data.get("revision") or "") or None,
        )

    def adapts(self, module: str) -> bool:
        """Whether the module of this name, a linear layer, has an adapter."""
        if _fits(module, self.excludes):
            return False
        if self.targets == ALL_LINEAR:
            return True
        if not _fits(module, self.targets):
            return False
        if isinstance(self.targets, str) or module in self.targets:  # a pattern, or a whole name
            return True
        return self.layers is None or self._layer(module) in self.layers

    def _layer(self, module: str) -> int | None:
        """The number of a module's layer: the first number after the name of a list of layers."""
        for pattern in self.layers_patterns or (r"[^.]*",):
            if match := re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", module):
                return int(match[1])
        return None

    def rank_of(self, module: str) -> int:
        """The rank of this module's adapter."""
        return self.rank_pattern.get(_key(module, self.rank_pattern), self.rank)

    def alpha_of(self, module: str) -> float:
        """The alpha of this module's adapter."""
        return self.alpha_pattern.get(_key(module, self.alpha_pattern), self.alpha)


def _fits(module: str, names: Sequence[str] | str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _key(module: str, patterns: Mapping[str, object]) -> str:
    """The first pattern that matches the end of a module's name."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), "")


def _check_kind(data: Mapping[str, Any], source: str) -> None:
    kind, bias, start = data.get("peft_type"), data.get("bias", "none"), data.get("init_lora_weights", True)
    if kind != "LORA":
        raise ConfigError(
            f"{source}: peft_type is {kind!r:.80}, and only LORA (with or without DoRA) is read here"
        )
    if bias not in ("none", None):
        raise ConfigError(
            f"{source}: bias is {bias!r:.80}: biases of the base, trained too, cannot be read here"
        )
    for key, what in FOREIGN.items():
        if data.get(key):
            raise ConfigError(f"{source}: {key} is {data[key]!r:.80}: {what} cannot be read here")
    if start not in PLAIN_STARTS:
        raise ConfigError(
            f"{source}: init_lora_weights is {start!r:.80}, which changes the base too: have PEFT convert the adapter"
            " with save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )


@dataclass(frozen=True)
class _Reader:
    """Reads the values of the file and checks them."""

    data: Mapping[str, Any]
    source: str

    def _wrong(self, key: str, value: object, rule: str) -> ConfigError:
        return ConfigError(f"{self.source}: {key} is {value!r:.200}, but has to be {rule}")

    def rank(self, key: str, value: Any) -> int:
        if not is_whole(value) or not 1 <= value <= MAX_RANK:
            raise self._wrong(key, value, f"a whole number from 1 to {MAX_RANK}")
        return int(value)

    def positive(self, key: str, value: Any) -> float:
        if not is_number(value) or not 0 < value < math.inf:
            raise self._wrong(key, value, "a finite number above 0")
        return float(value)

    def dropout(self, key: str) -> float:
        value = self.data.get(key, 0.0)
        if not is_number(value) or not 0 <= value < 1:
            raise self._wrong(key, value, "a number from 0 to below 1")
        return float(value)

    def switch(self, key: str) -> bool:
        value = self.data.get(key) or False
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def names(self, key: str) -> tuple[str, ...] | str:
        value = self.data.get(key) or []
        if isinstance(value, str):
            return value if value == ALL_LINEAR else self._pattern(key, value)
        return self._list(key, value, lambda name: isinstance(name, str), "a list of names, or a pattern")

    def list_names(self, key: str) -> tuple[str, ...]:
        value = self.data.get(key) or []
        return self._list(
            key,
            [value] if isinstance(value, str) else value,
            lambda name: isinstance(name, str) and re.fullmatch(r"[\w.]+", name) is not None,
            "one name or a list of names",
        )

    def layers(self, key: str) -> tuple[int, ...] | None:
        value = self.data.get(key)
        numbers = [value] if is_whole(value) else [] if value is None else value
        return self._list(key, numbers, is_whole, "a number or a list of numbers of layers") or None

    def _list(self, key: str, value: Any, is_valid: Callable[[Any], bool], rule: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or not all(map(is_valid, value)):
            raise self._wrong(key, value, rule)
        return tuple(value)

    def table(self, key: str, read: Callable[[str, Any], N]) -> dict[str, N]:
        value = self.data.get(key) or {}
        if not isinstance(value, dict):
            raise self._wrong(key, value, "an object")
        return {self._pattern(key, name): read(f"{key} of {name!r:.80}", x) for name, x in value.items()}

    def _pattern(self, key: str, pattern: str) -> str:
        """A regular expression without nested repetitions, some of which would take for ever."""
        endless = len(re.findall(r"(?<!\\)[*+]|\{\d+,\}", pattern))
        if len(pattern) > MAX_PATTERN or endless > MAX_REPEATS or re.search(r"\)[*+{]|\\\d", pattern):
            raise self._wrong(
                key, pattern, f"simpler: no repeated groups, no more than {MAX_REPEATS} repetitions"
            )
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise self._wrong(key, pattern, f"a regular expression ({error})") from error
        return pattern
