"""See with Apple's AIMv2 in MLX: embeddings, zero-shot labels and more, on Apple silicon and Linux.

    from mlx_aimv2 import load, Embedder

    model, processor = load("apple/aimv2-large-patch14-224")
    vectors = Embedder(model, processor).images(["photo.jpg"])  # (1, 1024) float32

Importing this package imports neither MLX nor Pillow; the names below do so when they are first used. On Linux
it loads a fast BLAS, if there is one, so that MLX finds it (`mlx_aimv2.backend.device.load_blas`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__
from .backend import threads as threads  # before anything is computed: it has to learn of forks
from .backend.device import load_blas, require_mlx

if TYPE_CHECKING:
    from .config import Aimv2Config, Aimv2TextConfig, Aimv2VisionConfig
    from .conversion.convert import convert
    from .conversion.export import export
    from .conversion.options import ConvertOptions
    from .inference.embedder import Embedder
    from .inference.zero_shot import ZeroShotClassifier
    from .loading import LoadOptions, load
    from .models.lit import Aimv2Model
    from .models.text import Aimv2TextModel
    from .models.vision import Aimv2VisionModel
    from .vectors.reading import Vectors, read_vectors

_WITHOUT_MLX = {"Aimv2Config": "config", "Aimv2TextConfig": "config", "Aimv2VisionConfig": "config"}
_WITH_MLX = {
    "Aimv2Model": "models.lit",
    "Aimv2TextModel": "models.text",
    "Aimv2VisionModel": "models.vision",
    "ConvertOptions": "conversion.options",
    "Embedder": "inference.embedder",
    "LoadOptions": "loading",
    "Vectors": "vectors.reading",
    "ZeroShotClassifier": "inference.zero_shot",
    "convert": "conversion.convert",
    "export": "conversion.export",
    "load": "loading",
    "read_vectors": "vectors.reading",
}

__all__ = [
    "Aimv2Config",
    "Aimv2Model",
    "Aimv2TextConfig",
    "Aimv2TextModel",
    "Aimv2VisionConfig",
    "Aimv2VisionModel",
    "ConvertOptions",
    "Embedder",
    "LoadOptions",
    "Vectors",
    "ZeroShotClassifier",
    "convert",
    "export",
    "load",
    "read_vectors",
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
