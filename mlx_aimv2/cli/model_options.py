"""Options that verbs share: which checkpoint, how to load it, how to read images."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints.load_options import COMPUTING, MODEL_HELP, FileOptions, LoadOptions
from ..datasets.options import Reading
from ..errors import InputError
from ..events import OnEvent
from ..options.fields import at_least, check_fields, like, option, options_from
from ..presets import DEFAULT_MODEL
from ..processing.options import MIN_PATCHES, READING, DecodeOptions, NativeOptions
from .completion import BACKGROUNDS, DEVICES, checkpoints, choices
from .output import say

if TYPE_CHECKING:
    from ..adapters.adapter_folder import AdapterFolder
    from ..loading import AnyModel
    from ..models.classifier import Classifier
    from ..processing.processor import Processor


@dataclass(frozen=True)
class JsonOptions:
    """How to print a result."""

    json: bool = option(False, "Print JSON.")


@dataclass(frozen=True)
class DeviceOptions:
    """The device that computes."""

    device: str | None = option(
        None,
        "cpu or gpu. [default: the GPU if there is one]",
        COMPUTING,
        envvar="MLX_AIMV2_DEVICE",
        autocompletion=choices(DEVICES),
    )

    def use_device(self) -> None:
        """Let MLX compute there."""
        from ..backend.device import use_device

        if self.device:
            use_device(self.device)


@dataclass(frozen=True)
class CheckpointOptions(FileOptions):
    """The files of a checkpoint, and the size of its images."""

    interpolate_positions: bool = like(LoadOptions, "interpolate_positions")
    image_size: int | None = like(LoadOptions, "image_size")

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class AdapterOptions:
    """An adapter."""

    adapter_path: Path | None = option(
        None, "Folder with an adapter or a trained head, from `finetune` or PEFT."
    )
    any_base: bool = like(LoadOptions, "any_base")

    def __post_init__(self) -> None:
        if self.any_base and self.adapter_path is None:
            raise InputError("--any-base needs --adapter-path")

    @cached_property
    def adapter(self) -> AdapterFolder | None:
        """The folder of the adapter, which is read once.

        Raises:
            CheckpointError: the folder is missing or damaged.
        """
        from ..adapters.adapter_folder import AdapterFolder

        return None if self.adapter_path is None else AdapterFolder.read(self.adapter_path)

    def base(self, model: str | None, revision: str | None) -> tuple[str, str | None]:
        """The checkpoint and its revision: ``model``, else the base of the adapter, else the default.

        Raises:
            InputError: the base of the adapter is a folder that does not exist.
            CheckpointError: the folder of the adapter is missing or damaged.
        """
        if model is not None or self.adapter is None:
            return model or DEFAULT_MODEL, revision
        base = self.adapter.base()
        if base is None:
            say(f"{self.adapter_path} does not name its base: {DEFAULT_MODEL} is used; --model names another")
            return DEFAULT_MODEL, revision
        at = f" at revision {base.revision}" if base.revision and not revision else ""
        say(f"the base is {base.model}{at}, as {self.adapter_path} says; --model names another")
        return base.model, revision or base.revision


@dataclass(frozen=True)
class NamedModelOptions:
    """A checkpoint by its name."""

    model: str | None = option(
        None,
        f"{MODEL_HELP} [default: the base of the adapter, else {DEFAULT_MODEL}]",
        flags=("--model", "-m"),
        autocompletion=checkpoints,
    )


@dataclass(frozen=True)
class AdaptedModelOptions(AdapterOptions, NamedModelOptions):
    """A checkpoint, and an adapter for it."""


@dataclass(frozen=True)
class LoadingOptions(CheckpointOptions, DeviceOptions):
    """How to load a checkpoint, and how to read images for it."""

    dtype: str = like(LoadOptions, "dtype", "auto")
    keep_quantized: bool = like(LoadOptions, "keep_quantized")
    exclude: tuple[str, ...] = like(Reading, "exclude", panel=READING)
    decode: str = like(
        DecodeOptions, "decode", "fast"
    )  # photos are large, and Python is exact for comparisons
    background: str = like(DecodeOptions, "background", autocompletion=choices(BACKGROUNDS))
    max_megapixels: float = like(DecodeOptions, "max_megapixels")
    allow_truncated: bool = like(DecodeOptions, "allow_truncated")
    color_managed: bool | None = like(DecodeOptions, "color_managed")
    min_patches: int = like(NativeOptions, "min_patches")
    max_patches: int = like(NativeOptions, "max_patches")

    @property
    def decoding(self) -> DecodeOptions:
        """How to decode images."""
        return options_from(DecodeOptions, self)

    def load_options(self, any_base: bool = False) -> LoadOptions:
        """The same for `load`."""
        # --max-patches below the default minimum lowers the minimum too
        low = min(self.min_patches, self.max_patches) if self.min_patches == MIN_PATCHES else self.min_patches
        native = NativeOptions(low, self.max_patches)
        return options_from(LoadOptions, self, decode=self.decoding, native=native, any_base=any_base)


@dataclass(frozen=True)
class ModelOptions(LoadingOptions, AdaptedModelOptions):
    """Everything about a model that a verb loads and runs."""

    batch_size: int | None = option(
        None,
        "Images computed at once, at least 1. [default: what suits the device]",
        COMPUTING,
        at_least(1),
    )

    def __post_init__(self) -> None:
        AdapterOptions.__post_init__(self)
        LoadingOptions.__post_init__(self)

    def with_base(self) -> ModelOptions:
        """The same with the checkpoint named; see `base`."""
        model, revision = self.base(self.model, self.revision)
        options = dataclasses.replace(self, model=model, revision=revision)
        if "adapter" in vars(self):  # read already
            vars(options)["adapter"] = self.adapter
        return options

    def check_head_is_named(self, zero_shot: str = "") -> None:
        """Refuse a fused checkpoint with a trained head in its folder, if no --adapter-path names this head.

        Args:
            zero_shot: options that give zero-shot labels of the checkpoint instead; empty for none.

        Raises:
            InputError: the checkpoint has a head, and there is no adapter.
        """
        model = self.model or DEFAULT_MODEL
        if self.adapter_path is None and (Path(model).expanduser() / "head.safetensors").is_file():
            otherwise = f", or {zero_shot} for zero-shot labels of a pair" if zero_shot else ""
            head = f"--adapter-path {shlex.quote(model)}"
            raise InputError(f"{model} has a trained head beside it: add {head}{otherwise}")

    def load(self, on_event: OnEvent) -> tuple[AnyModel | Classifier, Processor]:
        """The model with its adapter, and its processor; raises as `mlx_aimv2.load` does."""
        from .. import load

        self.use_device()
        model, revision = self.base(self.model, self.revision)
        options = self.load_options(self.any_base)
        return load(model, revision=revision, adapter_path=self.adapter, options=options, on_event=on_event)


@dataclass(frozen=True)
class ExactLoadingOptions(LoadingOptions):
    """`LoadingOptions` with the defaults that training has for images."""

    decode: str = like(LoadingOptions, "decode", "exact")
    color_managed: bool | None = like(LoadingOptions, "color_managed", True)


@dataclass(frozen=True)
class ExactModelOptions(ExactLoadingOptions, ModelOptions):
    """`ModelOptions` with the defaults that training has for images."""
