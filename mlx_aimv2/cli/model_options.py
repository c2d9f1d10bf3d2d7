"""Options that verbs share: which checkpoint, how to load it, how to read images."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..events import OnEvent
from ..options.fields import at_least, check_fields, option
from ..presets import DEFAULT_MODEL, PATCH_RANGE
from .completion import BACKGROUNDS, DECODING, DEVICES, DTYPES, checkpoints, choices
from .output import say

if TYPE_CHECKING:
    from ..adapters.adapter_folder import AdapterFolder
    from ..loading import AnyModel, LoadOptions
    from ..models.classifier import Classifier
    from ..processing.processor import Processor

COMPUTING, READING = "Computing", "Reading images"
MIN_PATCHES, MAX_PATCHES = PATCH_RANGE
MODEL_HELP = (
    "A checkpoint folder, a repository, or a short name (see `mlx-aimv2 models`); demo needs no download."
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the old result once the new one is complete.")]


def model_option(default: str | None, help: str = MODEL_HELP) -> Any:
    """The field for `--model`."""
    return option(default, help, None, flags=("--model", "-m"), autocompletion=checkpoints)


def like(options: type, name: str, default: Any) -> Any:
    """A field with the option of another dataclass and a default of its own."""
    field = next(field for field in dataclasses.fields(options) if field.name == name)
    return dataclasses.field(default=default, metadata=field.metadata)


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
class FileOptions:
    """The files of a checkpoint."""

    revision: str | None = option(None, "Branch, tag or commit of the repository.")
    weights: str | None = option(None, "The weight file to read, if the checkpoint has several.")


@dataclass(frozen=True)
class CheckpointOptions(FileOptions):
    """The files of a checkpoint, and the size of its images."""

    interpolate_positions: bool = option(
        False,
        "Resample the position table of a model of fixed size (bicubic) for images of another size.",
        COMPUTING,
    )
    image_size: int | None = option(
        None,
        "With --interpolate-positions: height and width, at least 1. [default: from the checkpoint's image settings]",
        COMPUTING,
        at_least(1),
        metavar="PIXELS",
    )

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class AdapterOptions:
    """An adapter."""

    adapter_path: Path | None = option(
        None, "Folder with an adapter or a trained head, from `finetune` or PEFT."
    )
    any_base: bool = option(
        False,
        "Use the adapter with another checkpoint than it was trained on, such as a quantized copy.",
    )

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

    model: str | None = model_option(
        None, f"{MODEL_HELP} [default: the base of the adapter, else {DEFAULT_MODEL}]"
    )


@dataclass(frozen=True)
class AdaptedModelOptions(AdapterOptions, NamedModelOptions):
    """A checkpoint, and an adapter for it."""


@dataclass(frozen=True)
class LoadingOptions(CheckpointOptions, DeviceOptions):
    """How to load a checkpoint, and how to read images for it."""

    dtype: str = option(
        "auto",
        "float32, float16, bfloat16, or auto: float32 on a CPU, float16 on a GPU.",
        COMPUTING,
        autocompletion=choices(("auto", *DTYPES)),
    )
    keep_quantized: bool = option(
        False, "On a CPU, compute with packed weights (slower, less memory).", COMPUTING
    )
    exclude: tuple[str, ...] = option(
        (),
        "Leave out files and folders with this name, or this path inside the folder, such as 'raw' or 'thumb_*';"
        " may be given several times.",
        READING,
        metavar="PATTERN",
    )
    decode: str = option(
        "fast",
        "fast: decode large JPEGs at a reduced size; exact: as transformers does.",
        READING,
        autocompletion=choices(DECODING),
    )
    background: str = option(
        "white",
        "Colour behind transparent images, or drop to ignore transparency as published.",
        READING,
        autocompletion=choices(BACKGROUNDS),
    )
    max_megapixels: float = option(200.0, "Skip larger images before decoding them.", READING)
    allow_truncated: bool = option(
        False,
        "Use the pixels that exist in images that are cut off, instead of skipping the images.",
        READING,
    )
    color_managed: bool | None = option(
        None,
        "Convert colours of embedded profiles to sRGB. [default: with --decode fast; always in evaluate and compare]",
        READING,
    )
    min_patches: int = option(
        MIN_PATCHES, "Native resolution: enlarge images of fewer patches; 1 for none.", READING
    )
    max_patches: int = option(MAX_PATCHES, "Native resolution: shrink images of more patches.", READING)

    def load_options(self, any_base: bool = False) -> LoadOptions:
        """The same for `load`."""
        from ..loading import LoadOptions
        from ..processing.options import DecodeOptions
        from ..processing.image import NativeOptions

        # --max-patches below the default minimum lowers the minimum too
        low = min(self.min_patches, self.max_patches) if self.min_patches == MIN_PATCHES else self.min_patches
        decode = {field.name: getattr(self, field.name) for field in dataclasses.fields(DecodeOptions)}
        return LoadOptions(
            dtype=self.dtype,
            keep_quantized=self.keep_quantized,
            weights=self.weights,
            decode=DecodeOptions(**decode),
            native=NativeOptions(min_patches=low, max_patches=self.max_patches),
            any_base=any_base,
            interpolate_positions=self.interpolate_positions,
            image_size=self.image_size,
        )


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
