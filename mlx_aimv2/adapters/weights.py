"""Trained weights that are no adapter: `head.safetensors`, `trunk.safetensors` and `trained.safetensors`.

The first holds a classification head, the second a whole vision encoder that was trained. The third holds the tensors
of an image-text pair that were trained beside its adapters, by their names in the pair: projections and logit scale,
or whole towers.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..checkpoints.files import inside, open_tensors, read_header
from ..checkpoints.identity import checkpoint_hash
from ..checkpoints.matching import check_fit
from ..errors import ConfigError, InputError, NotACheckpointError
from ..models.classifier_heads import make_head
from ..models.lit import Aimv2Model
from ..models.vision import Aimv2VisionModel
from ..quantization.scheme import unpack_modules
from .attach import adapted
from .task import TASK, Task

HEAD, TRUNK, TRAINED = "head.safetensors", "trunk.safetensors", "trained.safetensors"


def read_head(folder: Path, task: Task, width: int) -> nn.Module:
    """The trained head of a folder.

    Args:
        folder: with `head.safetensors`.
        task: of the same folder.
        width: D, of the encoder.

    Raises:
        NotACheckpointError: the folder has none.
        ConfigError: task.json describes no head.
        MismatchError: tensors are missing, unexpected or of the wrong shape; the message names all of them.
        DamagedFileError: the file is damaged.
    """
    path = inside(folder, HEAD)
    if not path.is_file():
        raise NotACheckpointError(f"{folder} holds no trained head: it lacks {HEAD}")
    try:
        head = make_head(task.head, width, len(task.labels))
    except InputError as error:
        raise ConfigError(error.message).at(folder / TASK) from error
    tensors = open_tensors(read_header((path,)))
    check_fit(dict(tree_flatten(head.parameters())), tensors, [], str(path), f"the head in {TASK}")
    head.load_weights([(name, x.astype(mx.float32)) for name, x in tensors.items()])
    mx.eval(head.parameters())
    head.eval()
    return head


def load_trunk(folder: Path, trunk: Aimv2VisionModel) -> None:
    """Replace the weights of an encoder by those of a folder, in the encoder's dtype; quantized weights become plain.

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


def load_trained(folder: Path, pair: Aimv2Model) -> None:
    """Replace the tensors of a pair that a folder holds, in the pair's dtypes; quantized weights become plain.

    Raises:
        MismatchError: a tensor is not the pair's, or has another shape.
        DamagedFileError: the file is damaged.
    """
    path = inside(folder, TRAINED)
    tensors = open_tensors(read_header((path,)))
    unpack_modules(pair, pair.vision.rms_norm.weight.dtype, tensors)
    own = dict(tree_flatten(pair.parameters()))
    check_fit({name: own[name] for name in tensors if name in own}, tensors, [], str(path), "the pair")
    pair.load_weights([(name, x.astype(own[name].dtype)) for name, x in tensors.items()], strict=False)


def trained_tensors(pair: nn.Module) -> dict[str, mx.array]:
    """The trainable tensors of a pair by name, without those of its adapters."""
    of_adapters = tuple(f"{path}." for path in adapted(pair))
    trainable = dict(tree_flatten(pair.trainable_parameters()))
    return {name: x for name, x in trainable.items() if not name.startswith(of_adapters)}


def weights_hash(folder: Path, name: str, adapter: str | None = None) -> str:
    """The hash of a file of weights, joined with the hash of the adapter beside it if there is one.

    Raises:
        DamagedFileError: the file is damaged.
    """
    digest = checkpoint_hash(read_header((inside(folder, name),)))
    return digest if adapter is None else hashlib.sha256(f"{digest} {adapter}".encode()).hexdigest()[:16]
