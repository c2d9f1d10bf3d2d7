"""What fine-tuning leaves for use, written and read back: the adapter in PEFT's format, the head, their purpose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from .._version import __version__
from ..adapters.adapter_folder import AdapterFolder
from ..adapters.attach import AdapterConfig, adapted
from ..adapters.store import save_adapter, write_tensors
from ..adapters.stored_adapter import read_stored
from ..adapters.task import PairTask, Task, write_task
from ..adapters.weights import HEAD, TRAINED, TRUNK, load_trained, load_trunk, trained_tensors
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
    task = PairTask(base=origin, method=method, towers=towers, preprocessing=settings, version=__version__)
    with new_best(folder) as partial:
        if adapter is not None:
            save_adapter(partial, model.trunk, adapter, origin)
        write_tensors(partial / TRAINED, trained_tensors(model.trunk), {"format": "mlx"})
        write_task(partial, task)


def base_of(model: Classifier | Contrast) -> Origin:
    """Where the encoder, or the pair, came from."""
    origin = getattr(model.trunk, "origin", None)
    return origin or Origin("unnamed", None, "", "", "float32")


def read_best(folder: Path, classifier: Classifier) -> None:
    """Put the trained parts that ``folder`` holds into the classifier they were trained in.

    Raises:
        CheckpointError: they are missing, damaged, or another model's.
    """
    trunk, best = classifier.trunk, AdapterFolder.read(folder)
    if best.adapter is not None:
        best.adapter.fill(trunk)
    if best.has_trunk:
        load_trunk(folder, trunk)
    classifier.head = best.head(trunk.config.hidden_size)
    mx.eval(classifier.parameters())


def read_best_pair(folder: Path, model: Contrast) -> None:
    """Put the trained parts that ``folder`` holds into the pair they were trained in.

    Raises:
        CheckpointError: they are missing, damaged, or another model's.
    """
    if adapted(model.trunk):
        read_stored(folder).fill(model.trunk)
    load_trained(folder, model.trunk)
    mx.eval(model.parameters())
