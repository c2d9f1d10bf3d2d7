"""What fine-tuning leaves for use, written and read back: the adapter in PEFT's format, the head, their purpose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from .. import __version__
from ..adapters.attach import AdapterConfig, adapted
from ..adapters.pair import TRAINED, PairTask, load_trained, trained_tensors
from ..adapters.store import KINDS, read_stored, save_adapter, write_tensors
from ..adapters.task import HEAD, TASK, Task, read_head, write_task
from ..adapters.trunk import TRUNK, load_trunk
from ..checkpoints.origin import Origin
from ..errors import OutputError
from ..models.classifier import Classifier, head_spec
from ..processing.image import ImageProcessor
from .contrast import Contrast


def write_best(
    folder: Path,
    classifier: Classifier,
    method: str,
    adapter: AdapterConfig | None,
    image_processor: ImageProcessor,
    multi_label: bool,
) -> None:
    """Write a classifier's trained parts; each file appears whole or not at all.

    The one that says what they are for goes first and comes last: parts of two epochs are never taken for one.

    Raises:
        OutputError: one of them cannot be written.
    """
    origin = base_of(classifier)
    _remove(folder / TASK)
    if adapter is not None:
        save_adapter(folder, classifier.trunk, adapter, origin)
    elif method == "full":
        write_tensors(folder / TRUNK, dict(tree_flatten(classifier.trunk.parameters())), {"format": "mlx"})
    write_tensors(folder / HEAD, dict(tree_flatten(classifier.head.parameters())), {"format": "mlx"})
    task = Task(
        labels=classifier.labels,
        base=origin,
        method=method,
        pooling=classifier.pooling,
        head=head_spec(classifier.head),
        preprocessing=image_processor.config.to_dict(),
        multi_label=multi_label,
        version=__version__,
    )
    write_task(folder, task)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def write_best_pair(
    folder: Path,
    model: Contrast,
    method: str,
    adapter: AdapterConfig | None,
    towers: Mapping[str, str],
    image_processor: ImageProcessor,
) -> None:
    """Write what was trained of a pair, as `write_best` does.

    Raises:
        OutputError: a file cannot be written.
    """
    origin = base_of(model)
    _remove(folder / TASK)
    if adapter is not None:
        save_adapter(folder, model.trunk, adapter, origin)
    write_tensors(folder / TRAINED, trained_tensors(model.trunk), {"format": "mlx"})
    settings = image_processor.config.to_dict()
    write_task(folder, PairTask(origin, method, towers, settings, version=__version__))


def base_of(model: Classifier | Contrast) -> Origin:
    """Where the encoder, or the pair, came from."""
    origin = getattr(model.trunk, "origin", None)
    return origin or Origin("unnamed", None, "", "", "float32")


def read_best(folder: Path, classifier: Classifier, task: Task) -> None:
    """Put the trained parts that ``folder`` holds into the classifier they were trained in.

    Raises:
        CheckpointError: they are missing, damaged, or another model's.
    """
    trunk = classifier.trunk
    if adapted(trunk):
        _read_adapters(folder, trunk)
    elif task.method == "full":
        load_trunk(folder, trunk)
    head: nn.Module = read_head(folder, task, trunk.config.hidden_size)
    classifier.head = head
    mx.eval(classifier.parameters())


def read_best_pair(folder: Path, model: Contrast) -> None:
    """Put the trained parts that ``folder`` holds into the pair they were trained in.

    Raises:
        CheckpointError: they are missing, damaged, or another model's.
    """
    if adapted(model.trunk):
        _read_adapters(folder, model.trunk)
    load_trained(folder, model.trunk)
    mx.eval(model.parameters())


def _read_adapters(folder: Path, model: nn.Module) -> None:
    tensors = read_stored(folder).tensors
    for path, layer in adapted(model).items():
        for kind, name in KINDS.items():
            if name in layer:
                layer[name] = tensors[f"{path}.{kind}"].astype(mx.float32)
