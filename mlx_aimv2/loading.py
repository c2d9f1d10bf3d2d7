"""From a name or a folder to a model that runs: hub, files, layout, configuration, weights."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import mlx.core as mx
from mlx.utils import tree_flatten

from .adapters.restore import adapter_folder, check_folder, restore
from .checkpoints.deduce import deduce_config
from .checkpoints.files import check_links, find_weights, open_tensors, outline, read_header
from .checkpoints.fit import check_fit, dtype_name
from .checkpoints.headers import Header
from .checkpoints.hub import Resolved, resolve
from .checkpoints.layouts import Layout, detect
from .checkpoints.origin import Origin, checkpoint_hash
from .checkpoints.quantize import Quantization, dequantize, quantize_modules, quantized_paths
from .checkpoints.selection import CONFIG
from .config import Aimv2Config, AnyConfig
from .errors import CheckpointError, ConfigError
from .events import Notice, OnEvent, ignore, warn
from .models.backend import DTYPES, blas_problem, compute_dtype, on_cpu, without_cache
from .models.classifier import Classifier
from .models.lit import Aimv2Model
from .models.vision import Aimv2VisionModel
from .processing.decode import DecodeOptions
from .processing.image import ImageProcessor, NativeOptions
from .processing.image_config import ImageProcessorConfig
from .processing.image_settings import find_settings
from .processing.processor import Processor
from .processing.tokenizer import Tokenizer
from .storage.json_files import read_json

AnyModel = Aimv2Model | Aimv2VisionModel
KEPT_FLOAT32 = ("position_embedding.weight", "logit_scale")


@dataclass(frozen=True)
class LoadOptions:
    """How to load a checkpoint.

    Attributes:
        dtype: float32, float16, bfloat16, or None / "auto": float32 on a CPU, float16 on a GPU.
        keep_quantized: on a CPU, compute with packed weights although plain ones are many times faster there.
        weights: the name of one weight file in the checkpoint, where it holds several.
        decode: how pictures are decoded.
        native: the patches a native-resolution model may be given.
        any_base: put an adapter on another checkpoint than it was trained on, such as a quantized copy of that.
    """

    dtype: str | None = None
    keep_quantized: bool = False
    weights: str | None = None
    decode: DecodeOptions = dataclasses.field(default_factory=DecodeOptions)
    native: NativeOptions = dataclasses.field(default_factory=NativeOptions)
    any_base: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been looked at and not opened.

    Attributes:
        resolved: where it lies and where it came from.
        header: its tensors' names, shapes and dtypes.
        layout: how it is written.
        config: the model it describes.
        quantization: how its weights are packed, or None.
        outline: arrays by canonical name that have the shapes and dtypes of its tensors, and none of their data.
        unknown: names that have no place in the layout.
    """

    resolved: Resolved
    header: Header
    layout: Layout
    config: AnyConfig
    quantization: Quantization | None
    outline: dict[str, mx.array]
    unknown: list[str]

    def open(self) -> dict[str, mx.array]:
        """Its tensors as lazy arrays by canonical name; those of an .npz or .msgpack file are unpacked first.

        Raises:
            DamagedFileError: a file cannot be opened, is damaged, or has changed since the checkpoint was looked at.
            OutputError: there is no room to unpack it.
        """
        return self.layout.to_canonical(open_tensors(self.header))[0]

    @property
    def stored_dtype(self) -> str:
        """What most of its plain weights are stored in, apart from tables that always are float32."""
        nbytes = dict.fromkeys(DTYPES, 0)
        for name, x in self.outline.items():
            if mx.issubdtype(x.dtype, mx.floating) and not name.endswith(KEPT_FLOAT32):
                nbytes[dtype_name(x.dtype)] += x.nbytes
        return max(nbytes, key=lambda dtype: nbytes[dtype])


@overload
def load(
    path_or_repo: str | os.PathLike[str],
    dtype: str | None = None,
    revision: str | None = None,
    adapter_path: None = None,
    *,
    options: LoadOptions | None = None,
    on_event: OnEvent | None = None,
) -> tuple[AnyModel, Processor]: ...


@overload
def load(
    path_or_repo: str | os.PathLike[str],
    dtype: str | None = None,
    revision: str | None = None,
    adapter_path: str | os.PathLike[str] | None = None,
    *,
    options: LoadOptions | None = None,
    on_event: OnEvent | None = None,
) -> tuple[AnyModel | Classifier, Processor]: ...


def load(
    path_or_repo: str | os.PathLike[str],
    dtype: str | None = None,
    revision: str | None = None,
    adapter_path: str | os.PathLike[str] | None = None,
    *,
    options: LoadOptions | None = None,
    on_event: OnEvent | None = None,
) -> tuple[AnyModel | Classifier, Processor]:
    """A model and its processor, from a folder or the Hugging Face Hub.

    Args:
        path_or_repo: a checkpoint folder in any published layout, a repository such as
            `apple/aimv2-large-patch14-224`, or a short name such as `large-224`, `native`, `lit`; or
            `demo`, which lies inside the package.
        dtype: what to compute in: float32, float16, bfloat16; None for float32 on a CPU and float16 on a GPU.
        revision: a branch, tag or commit of the repository.
        adapter_path: a folder with an adapter, as PEFT or this package writes it, with a trained head, or with both;
            or with what training a pair on captions left.
        options: everything else; its ``dtype`` gives way to the argument.
        on_event: called with progress and notices; without it, notices are Python warnings.

    Returns:
        `Aimv2Model` for an image-text pair, else `Aimv2VisionModel`, ready for inference, and its processor; with a
        trained head a `Classifier`, and a processor that prepares pictures as its training did.

    Raises:
        HubError: the checkpoint cannot be had from the Hub.
        CheckpointError: the folder is no checkpoint, or the checkpoint is damaged or not what it says; or the
            adapter is.
        InputError: a value of an argument does not exist, or the adapter was trained on another checkpoint.
        OutputError: there is no room to unpack an .npz or .msgpack file.
    """
    options = options or LoadOptions()
    emit = on_event or warn
    target = compute_dtype(dtype or options.dtype)
    checkpoint = inspect(path_or_repo, revision, options.weights, emit)
    if (problem := blas_problem()) is not None:
        emit(Notice(problem))
    if adapter_path is None:
        model = build_model(checkpoint, target, options.keep_quantized, emit)
        folder = checkpoint.resolved.folder
        return model, build_processor(folder, checkpoint.config, options, on_event=emit)
    folder = adapter_folder(adapter_path)
    task = check_folder(
        folder, origin_of(checkpoint, target), options.any_base, emit
    )  # before the weights are read
    model = build_model(checkpoint, target, options.keep_quantized, emit)
    settings = task.image_config() if task is not None else None
    processor = build_processor(checkpoint.resolved.folder, checkpoint.config, options, settings, emit)
    return restore(model, folder, options.any_base), processor


def inspect(
    path_or_repo: str | os.PathLike[str],
    revision: str | None = None,
    weights: str | None = None,
    on_event: OnEvent = warn,
) -> Checkpoint:
    """Everything about a checkpoint that the headers of its weight files and its small files say.

    Raises:
        HubError: the checkpoint cannot be had from the Hub.
        CheckpointError: the folder is no checkpoint, or its files contradict each other.
    """
    resolved = resolve(path_or_repo, revision, on_event, weights)
    folder = resolved.folder
    header = read_header(find_weights(folder, weights))
    layout = detect(header.shapes, header.metadata)
    check_links(folder)
    if not (folder / CONFIG).exists():
        on_event(Notice(f"{folder} has no {CONFIG}: its tensors, and the published values, stand in for it"))
    data = read_json(folder / CONFIG) if (folder / CONFIG).exists() else {}
    quantization = Quantization.from_config(data)
    tensors, unknown = layout.to_canonical(outline(header))
    if not quantized_paths(tensors):
        quantization = None  # whatever config.json says
    elif quantization is None:
        raise ConfigError(f"{folder}: its weights are quantized, and its config.json does not say how")
    config = deduce_config({name: tuple(x.shape) for name, x in tensors.items()}, data)
    return Checkpoint(resolved, header, layout, config, quantization, tensors, unknown)


def make_model(config: AnyConfig) -> AnyModel:
    """The model of ``config``, with random weights that are not computed until they are used."""
    return Aimv2Model(config) if isinstance(config, Aimv2Config) else Aimv2VisionModel(config)


def build_model(
    checkpoint: Checkpoint, dtype: mx.Dtype, keep_quantized: bool = False, on_event: OnEvent = warn
) -> AnyModel:
    """The model of a checkpoint with its weights read, one tensor at a time.

    Raises:
        MismatchError: tensors missing, unexpected or of the wrong shape; all of them in one message.
        CheckpointError: data that cannot be read or does not fit into memory.
        OutputError: there is no room to unpack an .npz or .msgpack file.
    """
    tensors, quantization, source = checkpoint.outline, checkpoint.quantization, checkpoint.resolved.folder
    model, unpacks = make_model(checkpoint.config), on_cpu() and not keep_quantized
    if quantization is not None and unpacks:
        tensors = dequantize(tensors, quantization, dtype)
        if not checkpoint.resolved.bundled:  # whose weights are packed for the size of the package only
            told = f"{quantization} weights were unpacked to {dtype_name(dtype)}"
            on_event(Notice(f"{told}: packed ones are slow on a CPU"))
    elif quantization is not None:
        quantize_modules(model, quantization, quantized_paths(tensors))
    check_fit(dict(tree_flatten(model.parameters())), tensors, checkpoint.unknown, str(source))
    tensors = checkpoint.open()
    if quantization is not None and unpacks:
        tensors = dequantize(tensors, quantization, dtype)
    model.load_weights([(name, _cast(name, x, dtype)) for name, x in tensors.items()])
    del tensors
    _read_one_by_one(model, checkpoint)
    model.eval()
    model.origin = origin_of(checkpoint, dtype)
    return model


def origin_of(checkpoint: Checkpoint, dtype: mx.Dtype) -> Origin:
    """The identity of the model that a checkpoint gives when it is computed in ``dtype``."""
    return Origin(
        name=checkpoint.resolved.name,
        revision=checkpoint.resolved.revision,
        checkpoint=checkpoint_hash(checkpoint.header),
        layout=checkpoint.layout.name,
        dtype=dtype_name(dtype),
        quantization=str(checkpoint.quantization) if checkpoint.quantization else None,
    )


def _cast(name: str, x: mx.array, dtype: mx.Dtype) -> mx.array:
    if not mx.issubdtype(x.dtype, mx.floating):
        return x  # packed weights, and the scales of some modes
    return mx.contiguous(x.astype(mx.float32 if name.endswith(KEPT_FLOAT32) else dtype))


def _read_one_by_one(model: AnyModel, checkpoint: Checkpoint) -> None:
    """Evaluate every parameter by itself: only one is held in two dtypes at any time."""
    try:
        with without_cache():
            for parameter in dict(tree_flatten(model.parameters())).values():
                mx.eval(parameter)
    except (RuntimeError, MemoryError) as error:  # MLX has one type for a file's end and for memory's
        raise CheckpointError(
            f"{checkpoint.resolved.folder}: its weights cannot be loaded ({error})"
        ) from error


def build_processor(
    folder: Path,
    config: AnyConfig,
    options: LoadOptions,
    settings: ImageProcessorConfig | None = None,
    on_event: OnEvent = ignore,
) -> Processor:
    """The processor of a checkpoint folder.

    Args:
        folder: the checkpoint.
        config: its model.
        options: how pictures are decoded, and how large they may be.
        settings: for images, in place of its own.
        on_event: told where defaults stand in for settings that the folder lacks.

    Raises:
        ConfigError: the file with its settings for images is damaged, or makes images the model cannot take.
        TokenizerError: an image-text pair without usable tokenizer files.
    """
    vision = config.vision_config if isinstance(config, Aimv2Config) else config
    source = "the adapter's task.json"
    if settings is None:
        found = find_settings(folder, config)
        settings, source = found.config, str(folder / (found.source or ""))
        for note in found.notes:
            on_event(Notice(note))
    images = ImageProcessor(settings, vision.patch_size, options.decode, options.native)
    _check_sizes(images, vision.image_size, vision.is_native, source)
    if not isinstance(config, Aimv2Config):
        return Processor(images)
    tokenizer, text = Tokenizer.from_folder(folder), config.text_config
    if tokenizer.vocab_size > text.vocab_size or tokenizer.eos_token_id != text.eos_token_id:
        raise ConfigError(
            f"{folder}: its tokenizer has {tokenizer.vocab_size} tokens with EOS {tokenizer.eos_token_id}, its model"
            f" {text.vocab_size} with EOS {text.eos_token_id}: the tokenizer files are another model's"
        )
    return Processor(images, tokenizer, text.max_position_embeddings)


def _check_sizes(images: ImageProcessor, image_size: int, is_native: bool, source: str) -> None:
    if is_native:  # takes any size, a fixed one too
        return
    made = images.output_size(image_size * 2, image_size * 3)  # neither square nor the size already
    if made != (image_size, image_size):
        raise ConfigError(
            f"{source} makes images of {made[0]} x {made[1]} pixels, and the model takes"
            f" {image_size} x {image_size}: correct its size and crop_size"
        )
