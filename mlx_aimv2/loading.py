"""From a name or a folder to a model that runs: hub, files, layout, configuration, weights."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import overload

import mlx.core as mx
from mlx.utils import tree_flatten

from .adapters.adapter_folder import AdapterFolder
from .backend.blas import blas_problem
from .backend.device import compute_dtype, on_cpu, without_cache
from .backend.threads import aside, computing
from .checkpoints.checkpoint import KEPT_FLOAT32
from .checkpoints.checkpoint import Checkpoint as Checkpoint
from .checkpoints.file_names import CONFIG
from .checkpoints.files import check_links, find_weights, outline, read_header
from .checkpoints.identity import Origin, checkpoint_hash
from .checkpoints.infer_config import infer_config
from .checkpoints.layouts import detect
from .checkpoints.matching import check_fit, dtype_name
from .checkpoints.position_table import table_name, table_size
from .checkpoints.prefixes import prefix_notices
from .checkpoints.resolve import resolve
from .config import Aimv2Config, AnyConfig
from .errors import CheckpointError, ConfigError, InputError, MismatchError
from .events import Notice, OnEvent, warn
from .models.classifier import Classifier
from .models.lit import Aimv2Model
from .models.vision import Aimv2VisionModel
from .processing.build import build_processor, made_size, resample
from .processing.decode import DecodeOptions
from .processing.image import NativeOptions
from .processing.image_config import ImageProcessorConfig
from .processing.processor import Processor
from .quantization.scheme import Quantization, dequantize, quantize_modules, quantized_paths
from .storage.json_files import read_json

AnyModel = Aimv2Model | Aimv2VisionModel


@dataclass(frozen=True)
class LoadOptions:
    """How to load a checkpoint.

    Attributes:
        dtype: float32, float16, bfloat16, or None / "auto": float32 on a CPU, float16 on a GPU.
        keep_quantized: on a CPU, compute with packed weights although plain ones are many times faster there.
        weights: the name of one weight file in the checkpoint, where it holds several.
        decode: how images are decoded.
        native: the patches a native-resolution model may be given.
        any_base: put an adapter on another checkpoint than it was trained on, such as a quantized copy of that.
        interpolate_positions: resample the position table of a model of fixed size for images of another size:
            bicubic in float32, as PyTorch's `interpolate` without antialiasing.
        image_size: pixels on a side of those images; None for what the checkpoint's own settings make.
    """

    dtype: str | None = None
    keep_quantized: bool = False
    weights: str | None = None
    decode: DecodeOptions = dataclasses.field(default_factory=DecodeOptions)
    native: NativeOptions = dataclasses.field(default_factory=NativeOptions)
    any_base: bool = False
    interpolate_positions: bool = False
    image_size: int | None = None


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


@computing
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
        revision: a branch, tag or commit of the repository. A short name stands for a fixed commit without it, a
            repository for its main branch.
        adapter_path: a folder with an adapter, as PEFT or this package writes it, with a trained head, or with both;
            or with what training a pair on captions left.
        options: everything else; its ``dtype`` gives way to the argument.
        on_event: called with progress and notices; without it, notices are Python warnings.

    Returns:
        `Aimv2Model` for an image-text pair, else `Aimv2VisionModel`, ready for inference, and its processor; with a
        trained head a `Classifier`, and a processor that prepares images as its training did.

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
    adapter = None if adapter_path is None else AdapterFolder.read(adapter_path)
    if adapter is not None:
        adapter.check(origin_of(checkpoint, target), options.any_base, emit)
    settings = None if adapter is None else adapter.image_config()
    checkpoint = at_resolution(checkpoint, options, settings)
    if (problem := blas_problem()) is not None:
        emit(Notice(problem))
    model = build_model(checkpoint, target, options.keep_quantized, emit)
    processor = build_processor(
        checkpoint.resolved.folder,
        checkpoint.config,
        options.decode,
        options.native,
        settings,
        options.interpolate_positions,
        emit,
    )
    return (model if adapter is None else aside(adapter.put_on)(model)), processor


def at_resolution(
    checkpoint: Checkpoint, options: LoadOptions, settings: ImageProcessorConfig | None = None
) -> Checkpoint:
    """A checkpoint for the size of images that ``options`` ask for.

    Args:
        checkpoint: as it is stored.
        options: whether to resample its position table, and for which size.
        settings: for images, in place of its own.

    Raises:
        InputError: the size makes no sense, is another than that of the table and is not to be resampled for, or
            the model takes any size.
        ConfigError: its settings for images are damaged.
    """
    size, vision = options.image_size, checkpoint.config.vision
    if options.interpolate_positions:
        if size is None and not vision.is_native:
            size = made_size(checkpoint.resolved.folder, checkpoint.config, settings)
        return checkpoint.at_size(vision.image_size if size is None else size)
    if size is not None and (vision.is_native or size != vision.image_size):
        name = checkpoint.resolved.name
        if vision.is_native:
            raise InputError(f"{name} takes any size, not {size!r} on a side: leave image_size out")
        own = f"{vision.image_size} x {vision.image_size} pixels"
        raise InputError(f"{name} takes {own}, not {size!r} on a side", resample())
    return checkpoint


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
    for notice in prefix_notices(layout.prefix, header.shapes, layout.left_out(header.shapes)):
        on_event(Notice(notice))
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
    config = infer_config({name: tuple(x.shape) for name, x in tensors.items()}, data)
    return Checkpoint(resolved, header, layout, config, quantization, tensors, unknown)


def make_model(config: AnyConfig) -> AnyModel:
    """The model of ``config``, with random weights that are not computed until they are used."""
    return Aimv2Model(config) if isinstance(config, Aimv2Config) else Aimv2VisionModel(config)


@computing
def build_model(
    checkpoint: Checkpoint, dtype: mx.Dtype, keep_quantized: bool = False, on_event: OnEvent = warn
) -> AnyModel:
    """The model of a checkpoint with its weights read, one tensor at a time.

    Raises:
        MismatchError: tensors missing, unexpected or of the wrong shape; all of them in one message.
        CheckpointError: data that cannot be read or does not fit into memory.
        OutputError: there is no room to unpack an .npz or .msgpack file.
    """
    tensors, quantization = checkpoint.outline, checkpoint.quantization
    model, unpacks = aside(make_model)(checkpoint.config), on_cpu() and not keep_quantized
    if quantization is not None and unpacks:
        tensors = dequantize(tensors, quantization, dtype)
        if not checkpoint.resolved.bundled:  # whose weights are packed for the size of the package only
            told = f"{quantization} weights were unpacked to {dtype_name(dtype)}"
            on_event(Notice(f"{told}: packed ones are slow on a CPU"))
    elif quantization is not None:
        quantize_modules(model, quantization, quantized_paths(tensors))
    check_model(model, checkpoint, tensors)
    tensors = checkpoint.open()
    if quantization is not None and unpacks:
        tensors = dequantize(tensors, quantization, dtype)
    model.load_weights([(name, _cast(name, x, dtype)) for name, x in tensors.items()])
    del tensors
    _read_one_by_one(model, checkpoint)
    model.eval()
    model.origin = origin_of(checkpoint, dtype)
    return model


def check_model(model: AnyModel, checkpoint: Checkpoint, tensors: Mapping[str, mx.array]) -> None:
    """Hold the tensors of a checkpoint against the model that it describes.

    Raises:
        MismatchError: the whole difference in one message.
    """
    expected, source = dict(tree_flatten(model.parameters())), str(checkpoint.resolved.folder)
    wrong = [name for name, x in expected.items() if name in tensors and tensors[name].shape != x.shape]
    size = table_size(tensors, checkpoint.config)
    if wrong == [table_name(checkpoint.config)] and size is not None:
        told = checkpoint.config.vision.image_size
        raise MismatchError(
            f"{source}: its position table is for {size} x {size} pixels, and its config.json says image_size {told}",
            resample("correct that, or "),
        )
    check_fit(expected, tensors, checkpoint.unknown, source)


def origin_of(checkpoint: Checkpoint, dtype: mx.Dtype) -> Origin:
    """The identity of the model that a checkpoint gives when it is computed in ``dtype``."""
    return Origin(
        name=checkpoint.resolved.name,
        revision=checkpoint.resolved.revision,
        checkpoint=checkpoint_hash(checkpoint.header),
        layout=checkpoint.layout.name,
        dtype=dtype_name(dtype),
        quantization=str(checkpoint.quantization) if checkpoint.quantization else None,
        image_size=checkpoint.config.vision.image_size if checkpoint.resampled else None,
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
