"""What fine-tuning leaves for use, written and read back: the adapter in PEFT's format, the head, their purpose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from .._version import __version__
from ..adapters.attach import AdapterConfig, adapted
from ..adapters.pair_task import TRAINED, PairTask, load_trained, trained_tensors
from ..adapters.store import fill_adapters, save_adapter, write_tensors
from ..adapters.stored_adapter import read_stored
from ..adapters.task import HEAD, Task, read_head, write_task
from ..adapters.weights import TRUNK, load_trunk
from ..checkpoints.identity import Origin
from ..models.classifier import Classifier, head_spec
from ..processing.image import ImageProcessor
from ..training.best_epoch import new_best
from .pair_model import Contrast


def write_best(
    folder: Path,
    classifier: Classifier,
    method: str,
    adapter: AdapterConfig | None,
    image_processor: ImageProcessor,
    multi_label: bool,
) -> None:
    """Write a classifier's trained parts, all of them or none; see `new_best`.

    Raises:
        OutputError: one of them cannot be written; those of the best epoch before are left as they were.
    """
    origin = base_of(classifier)
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
    with new_best(folder) as partial:
        if adapter is not None:
            save_adapter(partial, classifier.trunk, adapter, origin)
        elif method == "full":
            weights = dict(tree_flatten(classifier.trunk.parameters()))
            write_tensors(partial / TRUNK, weights, {"format": "mlx"})
        write_tensors(partial / HEAD, dict(tree_flatten(classifier.head.parameters())), {"format": "mlx"})
        write_task(partial, task)


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
        OutputError: a file cannot be written; those of the best epoch before are left as they were.
    """
    origin, settings = base_of(model), image_processor.config.to_dict()
    with new_best(folder) as partial:
        if adapter is not None:
            save_adapter(partial, model.trunk, adapter, origin)
        write_tensors(partial / TRAINED, trained_tensors(model.trunk), {"format": "mlx"})
        write_task(partial, PairTask(origin, method, towers, settings, version=__version__))


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
        fill_adapters(trunk, read_stored(folder))
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
        fill_adapters(model.trunk, read_stored(folder))
    load_trained(folder, model.trunk)
    mx.eval(model.parameters())
