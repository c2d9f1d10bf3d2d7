"""The weights of an encoder that was trained as a whole: `trunk.safetensors`, beside its head."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from ..checkpoints.files import inside, open_tensors, read_header
from ..checkpoints.identity import checkpoint_hash
from ..checkpoints.matching import check_fit
from ..models.vision import Aimv2VisionModel
from ..quantization.scheme import unpack_modules

TRUNK = "trunk.safetensors"


def has_trunk(folder: Path) -> bool:
    """Whether a folder holds the weights of a whole encoder."""
    return (folder / TRUNK).exists()


def load_trunk(folder: Path, trunk: Aimv2VisionModel) -> None:
    """Replace the weights of an encoder by those of a folder, in the encoder's dtype; packed ones by plain ones.

    Raises:
        MismatchError: tensors are missing, unexpected or of the wrong shape.
        DamagedFileError: the file is damaged.
    """
    path = inside(folder, TRUNK)
    unpack_modules(trunk, trunk.rms_norm.weight.dtype)
    tensors, own = open_tensors(read_header((path,))), dict(tree_flatten(trunk.parameters()))
    check_fit(own, tensors, [], str(path), "the encoder")
    trunk.load_weights([(name, x.astype(own[name].dtype)) for name, x in tensors.items()])
    mx.eval(trunk.parameters())


def trunk_hash(folder: Path) -> str:
    """The identity of the encoder in a folder.

    Raises:
        DamagedFileError: the file is damaged.
    """
    return checkpoint_hash(read_header((inside(folder, TRUNK),)))
