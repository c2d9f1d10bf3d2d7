"""Loading a checkpoint: from a name or a folder to a model with its weights, and a processor."""

from __future__ import annotations

import os
from collections.abc import Mapping
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
from .checkpoints.load_options import LoadOptions as LoadOptions
from .checkpoints.matching import check_fit, dtype_name
from .checkpoints.position_table import table_name, table_size
from .checkpoints.prefixes import prefix_notices
from .checkpoints.resolve import resolve
from .config import Aimv2Config, AnyConfig
from .errors import CheckpointError, ConfigError, InputError, MismatchError
from .events import Notice, OnEvent, warn
from .models.classifier import Classifier
from .models.joint_product import join_projections
from .models.lit import Aimv2Model
from .models.lit import AnyModel as AnyModel
from .models.vision import Aimv2VisionModel
from .processing.build import build_processor, made_size, resample_advice
from .processing.image_config import ImageProcessorConfig
from .processing.processor import Processor
from .quantization.scheme import Quantization, dequantize, quantize_modules, quantized_paths
from .storage.json_files import read_json

GROUP_SIZE = 2**22  # numbers that are read at the same time


@overload
def load(
    path_or_repo: str | os.PathLike[str],
    dtype: str | None = None,
    revision: str | None = None,
    adapter_path: None = None,
    *,
    options: LoadOptions | None = None,
    on_event: OnEvent = warn,
) -> tuple[AnyModel, Processor]: ...


@overload
def load(
    path_or_repo: str | os.PathLike[str],
    dtype: str | None = None,
    revision: str | None = None,
    adapter_path: str | os.PathLike[str] | None = None,
    *,
    options: LoadOptions | None = None,
    on_event: OnEvent = warn,
) -> tuple[AnyModel | Classifier, Processor]: ...


@computing
def load(
    path_or_repo: str | os.PathLike[str],
    dtype: str | None = None,
    revision: str | None = None,
    adapter_path: str | os.PathLike[str] | None = None,
    *,
    options: LoadOptions | None = None,
    on_event: OnEvent = warn,
) -> tuple[AnyModel | Classifier, Processor]:
    """Load a model and its processor from a folder or the Hugging Face Hub.

    Args:
        path_or_repo: a checkpoint folder in any published layout, a repository such as
            `apple/aimv2-large-patch14-224`, a short name such as `large-224`, `native` or `lit`, or `demo` for the
            checkpoint inside the package.
        dtype: to compute in: float32, float16 or bfloat16; None for float32 on a CPU and float16 on a GPU.
        revision: a branch, tag or commit of the repository; None for the main branch of a repository, and for the
            fixed commit of a short name.
        adapter_path: a folder that fine-tuning or PEFT wrote: with an adapter, a trained head, or a trained pair.
        options: all other settings; the argument ``dtype`` replaces theirs.
        on_event: called with progress and notices; by default notices are Python warnings.

    Returns:
        The model and its processor: `Aimv2Model` for an image-text pair, else `Aimv2VisionModel`. With a trained
        head, a `Classifier` and a processor that prepares images as the training did.

    Raises:
        HubError: the Hub does not deliver the checkpoint.
        CheckpointError: the folder holds no checkpoint, or checkpoint or adapter are damaged.
        InputError: an argument has no valid value, or the adapter was trained on another checkpoint.
        OutputError: there is no room to unpack an .npz or .msgpack file.
    """
    options = options or LoadOptions()
    target = compute_dtype(dtype or options.dtype)
    adapter = None if adapter_path is None else AdapterFolder.read(adapter_path)
    checkpoint = inspect(path_or_repo, revision, options.weights, on_event)
    if adapter is not None:
        adapter.check(origin_of(checkpoint, target), options.any_base, on_event)
    settings = None if adapter is None else adapter.image_config()
    checkpoint = at_resolution(checkpoint, options, settings)
    if (problem := blas_problem()) is not None:
        on_event(Notice(problem))
    model = build_model(checkpoint, target, options.keep_quantized, on_event)
    folder, resized = checkpoint.resolved.folder, options.interpolate_positions
    processor = build_processor(
        folder, checkpoint.config, options.decode, options.native, settings, resized, on_event
    )
    return (model if adapter is None else aside(adapter.put_on)(model)), processor


def at_resolution(
    checkpoint: Checkpoint, options: LoadOptions, settings: ImageProcessorConfig | None = None
) -> Checkpoint:
    """The checkpoint for images of the size that ``options`` name.

    Args:
        checkpoint: as stored.
        options: whether to resample its position table, and for which size.
        settings: for images; None for those of the checkpoint.

    Raises:
        InputError: the size is not valid, differs from that of the table without resampling, or the model takes any
            size.
        ConfigError: the checkpoint's settings for images are damaged.
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
        raise InputError(f"{name} takes {own}, not {size!r} on a side", resample_advice())
    return checkpoint


def inspect(
    path_or_repo: str | os.PathLike[str],
    revision: str | None = None,
    weights: str | None = None,
    on_event: OnEvent = warn,
) -> Checkpoint:
    """Read the headers of a checkpoint's weight files, and its small files; no weights.

    Raises:
        HubError: the Hub does not deliver the checkpoint.
        CheckpointError: the folder holds no checkpoint, or its files contradict each other.
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
    """The model of ``config``. Its random weights are lazy."""
    return Aimv2Model(config) if isinstance(config, Aimv2Config) else Aimv2VisionModel(config)


@computing
def build_model(
    checkpoint: Checkpoint, dtype: mx.Dtype, keep_quantized: bool = False, on_event: OnEvent = warn
) -> AnyModel:
    """The model of a checkpoint with its weights.

    Raises:
        MismatchError: tensors are missing, unexpected or of the wrong shape; the message names all of them.
        CheckpointError: the data cannot be read, or does not fit into memory.
        OutputError: there is no room to unpack an .npz or .msgpack file.
    """
    tensors, quantization = checkpoint.outline, checkpoint.quantization
    model, unpacks = aside(make_model)(checkpoint.config), on_cpu() and not keep_quantized
    if quantization is not None and unpacks:
        tensors = dequantize(tensors, quantization, dtype)
        if not checkpoint.resolved.bundled:  # those are quantized only to make the package smaller
            notice = f"{quantization} weights were unpacked to {dtype_name(dtype)}"
            on_event(Notice(f"{notice}: packed ones are slow on a CPU"))
    elif quantization is not None:
        quantize_modules(model, quantization, quantized_paths(tensors))
    check_model(model, checkpoint, tensors)
    tensors = checkpoint.open()
    if quantization is not None and unpacks:
        tensors = dequantize(tensors, quantization, dtype)
    model.load_weights([(name, _cast(name, x, dtype)) for name, x in tensors.items()])
    del tensors
    join_projections(model)
    _read_in_groups(model, checkpoint)
    model.eval()
    model.origin = origin_of(checkpoint, dtype)
    return model


def check_model(model: AnyModel, checkpoint: Checkpoint, tensors: Mapping[str, mx.array]) -> None:
    """Compare the tensors of a checkpoint with the model that it describes.

    Raises:
        MismatchError: they differ; the message names every difference.
    """
    expected, source = dict(tree_flatten(model.parameters())), str(checkpoint.resolved.folder)
    wrong = [name for name, x in expected.items() if name in tensors and tensors[name].shape != x.shape]
    size = table_size(tensors, checkpoint.config)
    if wrong == [table_name(checkpoint.config)] and size is not None:
        side = checkpoint.config.vision.image_size
        raise MismatchError(
            f"{source}: its position table is for {size} x {size} pixels, and its config.json says image_size {side}",
            resample_advice("correct that, or "),
        )
    check_fit(expected, tensors, checkpoint.unknown, source)


def origin_of(checkpoint: Checkpoint, dtype: mx.Dtype) -> Origin:
    """The identity of a checkpoint's model that computes in ``dtype``."""
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
    return x.astype(mx.float32 if name.endswith(KEPT_FLOAT32) else dtype)


def _read_in_groups(model: AnyModel, checkpoint: Checkpoint) -> None:
    """Evaluate the parameters in groups.

    MLX reads the tensors of a group at the same time, and only a group exists in two dtypes at any time.
    """
    group: list[mx.array] = []
    try:
        with without_cache():
            for parameter in dict(tree_flatten(model.parameters())).values():
                group.append(parameter)
                if sum(x.size for x in group) >= GROUP_SIZE:
                    mx.eval(group)
                    group.clear()
            mx.eval(group)
    except (RuntimeError, MemoryError) as error:  # the same for a short file and for too little memory
        folder = checkpoint.resolved.folder
        raise CheckpointError(f"{folder}: its weights cannot be loaded ({error})") from error
