"""What fine-tuning leaves for use, written and read back: the adapter in PEFT's format, the head, their purpose."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from .. import __version__
from ..adapters.attach import AdapterConfig, adapted
from ..adapters.store import KINDS, read_stored, save_adapter, write_tensors
from ..adapters.task import HEAD, TASK, Task, read_head, write_task
from ..adapters.trunk import TRUNK, load_trunk
from ..checkpoints.origin import Origin
from ..errors import OutputError
from ..models.classifier import Classifier, head_spec
from ..processing.image import ImageProcessor


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


def base_of(classifier: Classifier) -> Origin:
    """Where the encoder came from."""
    origin = getattr(classifier.trunk, "origin", None)
    return origin or Origin("unnamed", None, "", "", "float32")


def read_best(folder: Path, classifier: Classifier, task: Task) -> None:
    """Put the trained parts that ``folder`` holds into the classifier they were trained in.

    Raises:
        CheckpointError: they are missing, damaged, or another model's.
    """
    trunk = classifier.trunk
    layers = adapted(trunk)
    if layers:
        tensors = read_stored(folder).tensors
        for path, layer in layers.items():
            for kind, name in KINDS.items():
                if name in layer:
                    layer[name] = tensors[f"{path}.{kind}"].astype(mx.float32)
    elif task.method == "full":
        load_trunk(folder, trunk)
    head: nn.Module = read_head(folder, task, trunk.config.hidden_size)
    classifier.head = head
    mx.eval(classifier.parameters())
