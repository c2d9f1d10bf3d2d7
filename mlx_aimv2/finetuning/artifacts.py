"""Writing and reading the files of the best epoch: the adapter in PEFT's format, the head, `task.json`."""

from __future__ import annotations

import mlx.core as mx
from mlx.utils import tree_flatten

from .._version import __version__
from ..adapters.adapter_folder import AdapterFolder
from ..adapters.store import save_adapter, write_tensors
from ..adapters.task import SWAP, TASK, PairTask, Task, write_task
from ..adapters.weights import HEAD, TRAINED, TRUNK, load_trained, load_trunk, trained_tensors
from ..models.classifier_heads import head_spec
from ..storage.swap import replacing_together
from .pair_model import PairModel
from .prepared import ClassifierRun, PairRun, base_of


def write_best(run: ClassifierRun | PairRun) -> None:
    """Write the trained weights of a run, all files or none.

    Raises:
        OutputError: a file cannot be written; those of the best epoch before stay as they were.
    """
    model, method, origin = run.model, run.options.fine_tune_type, base_of(run.model)
    settings = run.processor.image_processor.config.to_dict()
    task: Task | PairTask
    if isinstance(model, PairModel):
        towers = run.options.towers
        task = PairTask(
            base=origin, method=method, towers=towers, preprocessing=settings, version=__version__
        )
        files = {TRAINED: trained_tensors(model.trunk)}
    else:
        task = Task(
            labels=model.labels,
            base=origin,
            method=method,
            pooling=model.pooling,
            head=head_spec(model.head),
            preprocessing=settings,
            multi_label=model.multi_label,
            version=__version__,
        )
        files = {TRUNK: dict(tree_flatten(model.trunk.parameters()))} if method == "full" else {}
        files[HEAD] = dict(tree_flatten(model.head.parameters()))
    with replacing_together(run.folder / SWAP, TASK) as partial:
        if run.adapter is not None:
            save_adapter(partial, model.trunk, run.adapter, origin)
        for name, tensors in files.items():
            write_tensors(partial / name, tensors, {"format": "mlx"})
        write_task(partial, task)


def read_best(run: ClassifierRun | PairRun) -> None:
    """Load the trained weights of the best epoch into ``run.model``.

    Raises:
        CheckpointError: a file is missing, damaged, or of another model.
    """
    model, best = run.model, AdapterFolder.read(run.folder)
    if best.adapter is not None:
        best.adapter.fill(model.trunk)
    if isinstance(model, PairModel):
        load_trained(run.folder, model.trunk)
    else:
        if best.has_trunk:
            load_trunk(run.folder, model.trunk)
        model.head = best.head(model.trunk.config.hidden_size)
    mx.eval(model.parameters())
