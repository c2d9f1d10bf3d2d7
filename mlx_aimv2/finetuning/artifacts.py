"""Writes and reads the files of the best epoch: the adapter in PEFT's format, the head, `task.json`."""

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
from ..adapters.task import SWAP, TASK, PairTask, Task, write_task
from ..adapters.weights import HEAD, TRAINED, TRUNK, load_trained, load_trunk, trained_tensors
from ..checkpoints.identity import Origin
from ..models.classifier import Classifier
from ..models.classifier_heads import head_spec
from ..processing.image import ImageProcessor
from ..storage.swap import replacing_together
from .pair_model import PairModel


def write_best(
    folder: Path,
    classifier: Classifier,
    method: str,
    adapter: AdapterConfig | None,
    image_processor: ImageProcessor,
    multi_label: bool,
) -> None:
    """Write the trained weights of a classifier, all files or none.

    Raises:
        OutputError: a file cannot be written; those of the best epoch before stay as they were.
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
    with replacing_together(folder / SWAP, TASK) as partial:
        if adapter is not None:
            save_adapter(partial, classifier.trunk, adapter, origin)
        elif method == "full":
            weights = dict(tree_flatten(classifier.trunk.parameters()))
            write_tensors(partial / TRUNK, weights, {"format": "mlx"})
        write_tensors(partial / HEAD, dict(tree_flatten(classifier.head.parameters())), {"format": "mlx"})
        write_task(partial, task)


def write_best_pair(
    folder: Path,
    model: PairModel,
    method: str,
    adapter: AdapterConfig | None,
    towers: Mapping[str, str],
    image_processor: ImageProcessor,
) -> None:
    """Write the trained weights of a pair, as `write_best` does."""
    origin, settings = base_of(model), image_processor.config.to_dict()
    task = PairTask(base=origin, method=method, towers=towers, preprocessing=settings, version=__version__)
    with replacing_together(folder / SWAP, TASK) as partial:
        if adapter is not None:
            save_adapter(partial, model.trunk, adapter, origin)
        write_tensors(partial / TRAINED, trained_tensors(model.trunk), {"format": "mlx"})
        write_task(partial, task)


def base_of(model: Classifier | PairModel) -> Origin:
    """The origin of the encoder, or of the pair."""
    origin = getattr(model.trunk, "origin", None)
    return origin or Origin("unnamed", None, "", "", "float32")


def read_best(folder: Path, classifier: Classifier) -> None:
    """Load the trained weights in ``folder`` into the classifier they were trained in.

    Raises:
        CheckpointError: a file is missing, damaged, or of another model.
    """
    trunk, best = classifier.trunk, AdapterFolder.read(folder)
    if best.adapter is not None:
        best.adapter.fill(trunk)
    if best.has_trunk:
        load_trunk(folder, trunk)
    classifier.head = best.head(trunk.config.hidden_size)
    mx.eval(classifier.parameters())


def read_best_pair(folder: Path, model: PairModel) -> None:
    """Load the trained weights in ``folder`` into the pair they were trained in, as `read_best` does."""
    if adapted(model.trunk):
        read_stored(folder).fill(model.trunk)
    load_trained(folder, model.trunk)
    mx.eval(model.parameters())
