"""Apple's AIMv2 vision encoders in MLX: embeddings, labels, conversion and fine-tuning.

    from mlx_aimv2 import load, Embedder

    model, processor = load("apple/aimv2-large-patch14-224")
    vectors = Embedder(model, processor).images(["photo.jpg"])  # (1, 1024) float32

This module holds the public names. Importing it imports neither MLX nor Pillow: each name imports its module when
it is first used. On Linux the import loads a fast BLAS library, if there is one, so that MLX finds it
(`mlx_aimv2.backend.blas.load_blas`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__
from .backend import threads as threads  # first: it registers the handlers that run at a fork
from .backend.blas import load_blas
from .backend.device import require_mlx
from .errors import (
    AccessTokenError,
    Aimv2Error,
    BackendError,
    BrokenImageError,
    ChangedFileError,
    CheckpointError,
    ConfigError,
    DamagedFileError,
    ExistsError,
    ForkedProcessError,
    GatedRepositoryError,
    HubError,
    ImageError,
    ImageTooLargeError,
    InputError,
    LayoutError,
    MismatchError,
    MissingExtraError,
    NonFiniteError,
    NotACheckpointError,
    OfflineError,
    OutputError,
    PickleRefusedError,
    RepositoryNotFoundError,
    TokenizerError,
    TrainingError,
)

if TYPE_CHECKING:
    from .checkpoints.load_options import LoadOptions
    from .config import Aimv2Config, Aimv2TextConfig, Aimv2VisionConfig
    from .conversion.convert import convert
    from .conversion.export import export
    from .conversion.fuse import fuse
    from .conversion.options import ConvertOptions, ExportOptions, FuseOptions
    from .demo.images import sample_images
    from .evaluation.labels import evaluate_labels
    from .evaluation.retrieval import evaluate_retrieval
    from .finetuning.options import FinetuneOptions
    from .finetuning.run import finetune
    from .inference.batch_embedder import BatchEmbedder
    from .inference.embedder import Embedder
    from .inference.trained_head import TrainedClassifier
    from .inference.zero_shot import ZeroShotClassifier
    from .loading import load
    from .models.lit import Aimv2Model
    from .models.text import Aimv2TextModel
    from .models.vision import Aimv2VisionModel
    from .processing.crops import crops
    from .processing.options import DecodeOptions, NativeOptions
    from .processing.source_image import SourceImage
    from .quantization.scheme import Scheme
    from .sources.find import Found, find_sources
    from .sources.options import SourceOptions
    from .vectors.reading import Vectors, read_vectors

_WITHOUT_MLX = {
    "Aimv2Config": "config",
    "Aimv2TextConfig": "config",
    "Aimv2VisionConfig": "config",
    "Found": "sources.find",
    "SourceImage": "processing.source_image",
    "SourceOptions": "sources.options",
    "find_sources": "sources.find",
    "sample_images": "demo.images",
}
_WITH_MLX = {
    "Aimv2Model": "models.lit",
    "Aimv2TextModel": "models.text",
    "Aimv2VisionModel": "models.vision",
    "BatchEmbedder": "inference.batch_embedder",
    "ConvertOptions": "conversion.options",
    "DecodeOptions": "processing.options",
    "Embedder": "inference.embedder",
    "ExportOptions": "conversion.options",
    "FinetuneOptions": "finetuning.options",
    "FuseOptions": "conversion.options",
    "LoadOptions": "checkpoints.load_options",
    "NativeOptions": "processing.options",
    "Scheme": "quantization.scheme",
    "TrainedClassifier": "inference.trained_head",
    "Vectors": "vectors.reading",
    "ZeroShotClassifier": "inference.zero_shot",
    "convert": "conversion.convert",
    "crops": "processing.crops",
    "evaluate_labels": "evaluation.labels",
    "evaluate_retrieval": "evaluation.retrieval",
    "export": "conversion.export",
    "finetune": "finetuning.run",
    "fuse": "conversion.fuse",
    "load": "loading",
    "read_vectors": "vectors.reading",
}

__all__ = [
    "AccessTokenError",
    "Aimv2Config",
    "Aimv2Error",
    "Aimv2Model",
    "Aimv2TextConfig",
    "Aimv2TextModel",
    "Aimv2VisionConfig",
    "Aimv2VisionModel",
    "BackendError",
    "BatchEmbedder",
    "BrokenImageError",
    "ChangedFileError",
    "CheckpointError",
    "ConfigError",
    "ConvertOptions",
    "DamagedFileError",
    "DecodeOptions",
    "Embedder",
    "ExistsError",
    "ExportOptions",
    "FinetuneOptions",
    "ForkedProcessError",
    "Found",
    "FuseOptions",
    "GatedRepositoryError",
    "HubError",
    "ImageError",
    "ImageTooLargeError",
    "InputError",
    "LayoutError",
    "LoadOptions",
    "MismatchError",
    "MissingExtraError",
    "NativeOptions",
    "NonFiniteError",
    "NotACheckpointError",
    "OfflineError",
    "OutputError",
    "PickleRefusedError",
    "RepositoryNotFoundError",
    "Scheme",
    "SourceImage",
    "SourceOptions",
    "TokenizerError",
    "TrainedClassifier",
    "TrainingError",
    "Vectors",
    "ZeroShotClassifier",
    "convert",
    "crops",
    "evaluate_labels",
    "evaluate_retrieval",
    "export",
    "find_sources",
    "finetune",
    "fuse",
    "load",
    "read_vectors",
    "sample_images",
]

load_blas()


def __getattr__(name: str) -> Any:
    if name in _WITHOUT_MLX:
        module = _WITHOUT_MLX[name]
    elif name in _WITH_MLX:
        require_mlx()
        module = _WITH_MLX[name]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
