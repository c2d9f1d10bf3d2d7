"""Facts about a checkpoint, for `mlx-aimv2 info`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from .checkpoints.matching import check_fit
from .errors import Aimv2Error, ConfigError
from .events import ignore
from .loading import Checkpoint, make_model
from .processing.build import build_processor
from .processing.image_settings import find_settings
from .processing.tokenizer import Tokenizer
from .quantization.scheme import quantize_modules, quantized_paths


def describe_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """Layout, configuration, sizes and missing files of a checkpoint, without reading its weights."""
    header, config = checkpoint.header, checkpoint.config
    expected = dict(tree_flatten(make_model(config).parameters()))
    parameters, folder = sum(x.size for x in expected.values()), checkpoint.resolved.folder
    images = _images(checkpoint)
    missing = {
        "config.json": not (folder / "config.json").exists(),
        "preprocessor_config.json": images is not None and images["source"] is None,
        "tokenizer.json (or vocab.json and merges.txt)": config.is_pair and not Tokenizer.exists(folder),
    }
    return {
        "source": checkpoint.resolved.name,
        "folder": str(folder),
        "revision": checkpoint.resolved.revision,
        "files": [path.name for path in header.files],
        "layout": checkpoint.layout.name,
        "kind": "image-text pair" if config.is_pair else "vision encoder",
        "tensors": len(header.tensors),
        "dtypes": dict(Counter(info.dtype for info in header.tensors.values())),
        "parameters": parameters,
        "bytes": header.nbytes,
        "memory": {"float32": parameters * 4, "float16": parameters * 2},
        "quantization": str(checkpoint.quantization) if checkpoint.quantization else None,
        "images": images,
        "missing_files": [name for name, is_missing in missing.items() if is_missing],
        "problem": _problem(checkpoint, expected),
        "config": config.to_dict(),
    }


def _images(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The image settings, the file they are from, and notes on defaults; None if the file is damaged."""
    try:
        settings = find_settings(checkpoint.resolved.folder, checkpoint.config)
    except ConfigError:
        return None  # "problem" names it
    known = {key: x for key, x in settings.config.to_dict().items() if key not in settings.config.extra}
    return {"source": settings.source, "notes": list(settings.notes), **known}


def _problem(checkpoint: Checkpoint, expected: dict[str, mx.array]) -> str | None:
    """The message of the error that `load` would raise; None for none."""
    if checkpoint.quantization is not None:
        model = make_model(checkpoint.config)
        quantize_modules(model, checkpoint.quantization, quantized_paths(checkpoint.outline))
        expected = dict(tree_flatten(model.parameters()))
    try:
        check_fit(expected, checkpoint.outline, checkpoint.unknown, "the checkpoint")
        build_processor(checkpoint.resolved.folder, checkpoint.config, on_event=ignore)
    except Aimv2Error as error:
        return str(error)
    return None
