"""The weights of an earlier training that a new run begins with (`--resume-adapter-file`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..adapters.adapter_folder import AdapterFolder
from ..adapters.attach import adapted
from ..adapters.stored_adapter import CONFIG, TENSORS, StoredAdapter
from ..adapters.task import TASK, PairTask, Task
from ..adapters.weights import HEAD, TRAINED, TRUNK, load_trained, load_trunk
from ..checkpoints.matching import fold_names
from ..datasets.captioned import CaptionDataset
from ..datasets.held_out import known_images
from ..datasets.labelled import Dataset
from ..datasets.record import RECORD
from ..errors import Advice, InputError
from ..events import Notice, OnEvent
from ..models.classifier import Classifier
from ..models.classifier_heads import head_spec
from ..storage.json_files import read_json
from .methods import METHODS
from .options import FinetuneOptions
from .pair_model import PairModel
from .prepared import base_of

FLAG = "--resume-adapter-file"
FILES = (TENSORS, CONFIG, HEAD, TRUNK, TRAINED, TASK)  # the path of each also names its folder


def start_folder(options: FinetuneOptions) -> AdapterFolder | None:
    """The folder with the weights that a run begins with; None for fresh weights.

    Raises:
        InputError: it does not exist.
        CheckpointError: it does not hold all files of a training.
    """
    if options.resume_adapter_file is None:
        return None
    path = Path(os.path.expanduser(options.resume_adapter_file))
    if path.is_file() and path.name not in FILES:
        raise InputError(f"{FLAG} {path}: name the folder of an adapter, or its {TENSORS}")
    return AdapterFolder.read(path.parent if path.is_file() else path)


def begin_at(
    model: Classifier | PairModel, start: AdapterFolder, options: FinetuneOptions, on_event: OnEvent
) -> None:
    """Load the weights of an earlier training into a model; the optimizer begins anew.

    Args:
        model: with fresh adapters and a fresh head.
        start: the folder of an earlier training, or of PEFT.
        options: of the new run.
        on_event: gets a notice of weights that the folder does not have.

    Raises:
        InputError: the folder has another base, task, method, rank, layers or labels.
        CheckpointError: a file is damaged, or does not fit.
    """
    folder = start.path
    _check_task(start, options)
    advice = Advice("train on that one, with {}", "model")
    start.check(base_of(model), on_event=on_event, source=f"{FLAG} {folder}", advice=advice)
    _check_method(start, options)
    fresh = []
    if start.adapter is not None:
        _check_layers(model.trunk, start.adapter)
        start.adapter.fill(model.trunk)
    elif METHODS[options.fine_tune_type].adapter is not None and adapted(model.trunk):
        fresh.append("adapter")
    if isinstance(model, PairModel):
        if isinstance(start.task, PairTask):
            load_trained(folder, model.trunk)
        else:
            fresh.append("trained projection")
    else:
        if start.has_trunk:
            load_trunk(folder, model.trunk)
        if isinstance(start.task, Task):
            model.head = _stored_head(model, start, start.task)
        else:
            fresh.append("head")
    mx.eval(model.parameters())
    if fresh:
        on_event(Notice(f"{folder} has no {' and no '.join(fresh)}: this run begins with a fresh one"))


def warn_of_known_images(dataset: Dataset | CaptionDataset, folder: Path, on_event: OnEvent) -> None:
    """Send a notice if the earlier training in ``folder`` has learned from held-out images of ``dataset``."""
    if not (folder / RECORD).is_file():
        return
    trained = {example.path for example in known_images(dataset, read_json(folder / RECORD))["train"]}
    held_out = [*dataset.val, *dataset.test]
    if count := sum(example.path in trained for example in held_out):
        on_event(
            Notice(
                f"{count:,} of {len(held_out):,} held-out images were trained on in {folder}: what is measured on"
                " them is too good; the same --data, --seed and --val-fraction hold the same ones out"
            )
        )


def _stored_head(classifier: Classifier, start: AdapterFolder, task: Task) -> nn.Module:
    """The head of a folder, if it has the kind and the labels of the fresh one."""
    folder, head = start.path, start.head(classifier.trunk.config.hidden_size)
    if labels := _difference(task.labels, classifier.labels):
        raise InputError(
            f"{FLAG} {folder}: its head has other labels than the data: {labels}; copy {CONFIG} and {TENSORS} alone"
            " into a folder to begin with a fresh head"
        )
    pairs: list[tuple[str, Any, Any]] = [
        ("pooling", task.pooling, classifier.pooling),
        ("multi_label", task.multi_label, classifier.multi_label),
    ]
    old, new = head_spec(head), head_spec(classifier.head)
    pairs += [(name, old.get(name), new.get(name)) for name in {**old, **new}]
    for name, there, here in pairs:
        if there != here:
            raise InputError(f"{FLAG} {folder}: {name} of its head is {there!r}, and {here!r} in this run")
    return head


def _difference(there: tuple[str, ...], here: tuple[str, ...]) -> str:
    """How two lists of labels differ; empty if they are the same."""
    differences = [
        f"{len(names)} only {where} ({', '.join(map(repr, names[:5]))}{', …' if len(names) > 5 else ''})"
        for names, where in (
            ([name for name in there if name not in here], "there"),
            ([name for name in here if name not in there], "in the data"),
        )
        if names
    ]
    return ", ".join(differences) or ("another order" if there != here else "")


def _check_task(start: AdapterFolder, options: FinetuneOptions) -> None:
    folder, task = start.path, start.task
    if task is None:
        return
    trained_for = "contrastive" if isinstance(task, PairTask) else "classify"
    if trained_for != options.task:
        raise InputError(
            f"{FLAG} {folder} was trained with --task {trained_for}, and this run is --task {options.task}: give that"
            " task, or `mlx-aimv2 fuse` it and name the result with --model"
        )
    if isinstance(task, PairTask) and dict(task.towers) != options.towers:
        states = " ".join(f"--{tower}-tower {state}" for tower, state in task.towers.items())
        raise InputError(f"{FLAG} {folder} was trained with {states}: give the same")


def _check_method(start: AdapterFolder, options: FinetuneOptions) -> None:
    folder, stored = start.path, start.adapter
    name = options.fine_tune_type
    method = METHODS[name]
    if start.has_trunk and not method.full:
        raise InputError(
            f"{FLAG} {folder} holds a whole encoder ({TRUNK}), and {name} trains none: give --fine-tune-type full, or"
            " `mlx-aimv2 fuse` it and name the result with --model"
        )
    if stored is None:
        return
    config = stored.config
    kind = "dora" if config.dora else "lora"
    if method.adapter != kind:
        raise InputError(
            f"{FLAG} {folder} holds an adapter of the kind {kind}, and {name} trains none such: give --fine-tune-type"
            f" {kind}, or `mlx-aimv2 fuse` it and name the result with --model"
        )
    if config.rslora:
        raise InputError(f"{FLAG} {folder}: its adapter is scaled as in rsLoRA, which is not trained here")
    modules = sorted(stored.modules())
    for option, of, wanted in (
        ("rank", stored.rank_of, options.rank),
        ("alpha", stored.alpha_of, options.alpha),
    ):
        values = sorted({of(module) for module in modules})
        if values != [wanted]:
            there = ", ".join(f"{value:g}" for value in values)
            advice = f"give --{option} {there}" if len(values) == 1 else "a run has a single one"
            raise InputError(f"{FLAG} {folder}: its adapter has {option} {there}, not {wanted:g}: {advice}")


def _check_layers(trunk: nn.Module, stored: StoredAdapter) -> None:
    here, there = set(stored.layers_of(trunk)), stored.modules()
    differences = [
        f"{len(names)} layers only {where} ({fold_names(sorted(names))})"
        for names, where in ((there - here, "there"), (here - there, "in this run"))
        if names
    ]
    if differences:
        raise InputError(
            f"{FLAG} {stored.folder}: its adapter is of other layers: {'; '.join(differences)}: give the same"
            " --target-modules and --num-layers, or the model it was trained on"
        )
