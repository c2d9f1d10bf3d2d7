"""Fine-tuning from options to a folder with an adapter or a head, its report, and what is needed to go on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from ..adapters.attach import count_trainable
from ..adapters.task import read_task
from ..checkpoints.atomic import replacing
from ..checkpoints.files import read_json
from ..errors import InputError, OutputError
from ..evaluation import Evaluation, evaluate_classifier, save_picture, write_report
from ..events import Notice, OnEvent, ignore, warn
from ..loading import LoadOptions, load
from ..models.backend import on_cpu
from ..plots import draw_curves
from ..processing.augment import Augmentation
from ..processing.processor import Processor
from .artifacts import read_best, write_best
from .batches import Batches, BatchOptions, class_weights
from .building import adapter_config, build_classifier
from .dataset import Dataset, read_dataset
from .loop import Loop, Trained
from .methods import METHODS
from .mixing import Mixing
from .options import FinetuneOptions
from .prepared import Prepared, make_stepper, validation_metrics
from .probing import train_probe
from .record import split_record
from .scanning import scan
from .state import STATE

SPLITS, REPORT, CURVES = "splits.json", "report", "curves.png"


@dataclass(frozen=True)
class Finished:
    """What fine-tuning left.

    Attributes:
        folder: the adapter or head, the report, the state.
        trained: how it went; None for a method without training.
        evaluation: of the best epoch, on the test pictures, or on those for validation where there are none.
        split: which of the two.
        trainable: numbers that were trained.
        parameters: of the whole model.
        seconds: it took.
    """

    folder: Path
    trained: Trained | None
    evaluation: Evaluation
    split: str
    trainable: int
    parameters: int
    seconds: float


def finetune(options: FinetuneOptions, on_event: OnEvent = warn) -> Finished:
    """Fine-tune an encoder on labelled pictures.

    Args:
        options: what on, how, and where to.
        on_event: called with progress, metrics, notices, and broken pictures; without it notices are warnings.

    Returns:
        What was best, where it is, and how good it is.

    Raises:
        InputError: data, options or folder do not go together.
        TrainingError: the loss is not finite; the best epoch so far is kept.
        OutputError: the folder cannot be written.
        CheckpointError: the checkpoint is damaged; HubError: it cannot be had.
    """
    started = time.monotonic()
    run = prepare(options, on_event)
    if METHODS[options.fine_tune_type].frozen:
        trained, trainable = train_probe(run, on_event)
    else:
        loop = make_loop(run, on_event)
        trained, trainable = loop.run(options.resume), count_trainable(run.classifier)
        read_best(run.folder, run.classifier, read_task(run.folder))
    evaluation, split = _evaluate(run, on_event)
    write_report(run.folder / REPORT, evaluation)
    if (lines := run.run_folder.read_log()) and trained is not None:
        save_picture(run.folder / REPORT / CURVES, draw_curves(lines))
    parameters = count_parameters(run.classifier)
    seconds = time.monotonic() - started
    return Finished(run.folder, trained, evaluation, split, trainable, parameters, seconds)


def count_parameters(module: nn.Module) -> int:
    """Numbers that a model consists of."""
    return sum(x.size for x in dict(tree_flatten(module.parameters())).values())


def prepare(options: FinetuneOptions, on_event: OnEvent = ignore, keep: bool = True) -> Prepared:
    """Read data and checkpoint, find broken pictures, and make the classifier.

    Args:
        options: what on, how, and where to.
        on_event: called with progress, notices, and broken pictures.
        keep: make the folder of the run; without it nothing is written.

    Raises:
        InputError, OutputError, CheckpointError, HubError: see `finetune`.
    """
    if not options.data:
        raise InputError("there is no data: give --data FOLDER, with a folder per class in it")
    dataset = read_dataset(options.data, val_fraction=options.val_fraction, seed=options.seed)
    if not dataset.val:
        raise InputError("there are no pictures for validation: give a --val-fraction, or a folder val/")
    if options.metric == "map" and not dataset.multi_label:
        raise InputError("--metric map is for pictures with several labels: use top1 or macro_f1")
    folder = _run_folder(options)
    if keep:
        _make_folder(folder)
    if options.resume and not (folder / STATE).is_file():
        on_event(Notice(f"nothing was saved in {folder} yet: the run begins"))
    load_options = LoadOptions(dtype=_dtype(options))
    model, processor = load(options.model, revision=options.revision, options=load_options, on_event=on_event)
    training = Batches(dataset, processor.image_processor)  # with one size for all pictures
    processor = Processor(training.image_processor, processor.tokenizer)
    dataset = scan(dataset, processor.image_processor, on_event)
    mx.random.seed(options.seed)
    classifier = build_classifier(model, dataset, options)
    if keep:
        _keep_splits(folder, dataset, options.resume)
    return Prepared(options, folder, dataset, classifier, processor, adapter_config(options))


def _dtype(options: FinetuneOptions) -> str:
    """What to compute in; weights that are trained themselves change by less than 16 bits can hold."""
    if options.dtype != "auto":
        return options.dtype
    return "float32" if on_cpu() or METHODS[options.fine_tune_type].full else "bfloat16"


def _keep_splits(folder: Path, dataset: Dataset, resume: bool) -> None:
    """Write which picture is in which split; a run that goes on must find the same.

    Raises:
        InputError: the pictures have changed since the run began.
        OutputError: the record cannot be written.
    """
    record = split_record(dataset)
    if resume and (folder / STATE).is_file() and read_json(folder / SPLITS) != record:
        raise InputError(
            f"--resume: the pictures are not those that {folder / SPLITS} names: put them back, or name another"
            " --adapter-path"
        )
    with replacing(folder / SPLITS) as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _run_folder(options: FinetuneOptions) -> Path:
    """The folder of the run, which need not be there yet.

    Raises:
        InputError: it holds another run, or none to go on with.
    """
    folder = Path(os.path.expanduser(options.adapter_path))
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name another --adapter-path")
    taken = folder.is_dir() and any(_taken(folder))
    # a run that was killed early on has left its splits, a part of its log, or only the folder
    begun = folder.is_dir() and (not taken or any((folder / name).is_file() for name in (SPLITS, STATE)))
    if options.resume and not begun:
        raise InputError(f"{folder} holds no run to go on with: leave --resume out")
    if taken and not options.resume:
        raise InputError(
            f"{folder} holds something already: --resume goes on with a run, or name another --adapter-path"
        )
    return folder


def _make_folder(folder: Path) -> None:
    """Make the folder, and make sure that it can be written to.

    Raises:
        OutputError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error


def _taken(folder: Path) -> list[Path]:
    """What a folder holds that a new run would mix with; features on disk are meant to be found."""
    return [
        path for path in folder.iterdir() if path.name not in ("features", SPLITS) and path.name[0] != "."
    ]


def make_loop(run: Prepared, on_event: OnEvent) -> Loop:
    """The training of an encoder, ready to start."""
    options, dataset = run.options, run.dataset
    weights = class_weights(dataset) if options.class_weights == "balanced" else None
    batches = Batches(dataset, run.processor.image_processor, batch_options(options), weights=weights)
    validation = Batches(
        dataset, run.processor.image_processor, BatchOptions(options.batch_size), split="val", training=False
    )
    classifier = run.classifier
    classifier.trunk.encoder.checkpoint_layers = options.grad_checkpoint

    def validate() -> Mapping[str, float]:
        logits = [np.array(classifier(mx.array(batch.pixels))) for batch in validation.epoch()]
        return validation_metrics(np.concatenate(logits), dataset)

    def keep_best() -> None:
        write_best(
            run.folder, classifier, options.fine_tune_type, run.adapter,
            run.processor.image_processor, dataset.multi_label,
        )  # fmt: skip

    stepper = make_stepper(classifier, options, dataset.multi_label)
    return Loop(stepper, batches, options, run.run_folder, validate, keep_best, on_event)


def batch_options(options: FinetuneOptions) -> BatchOptions:
    """How training batches are made."""
    crop, jitter = options.random_resized_crop, options.color_jitter
    augmentation = Augmentation(
        random_resized_crop=(crop, 1.0) if crop else None,
        flip=options.flip,
        randaugment=options.randaugment,
        magnitude=options.randaugment_magnitude,
        brightness=jitter,
        contrast=jitter,
        saturation=jitter,
    )
    mixing = Mixing(mixup=options.mixup, cutmix=options.cutmix)
    return BatchOptions(
        batch_size=options.batch_size,
        seed=options.seed,
        augmentation=augmentation if augmentation != Augmentation() else None,
        mixing=mixing if mixing != Mixing() else None,
        label_smoothing=options.label_smoothing,
    )


def _evaluate(run: Prepared, on_event: OnEvent) -> tuple[Evaluation, str]:
    dataset = run.dataset
    split = "test" if dataset.test else "val"
    examples = [(example.path, example.labels) for example in dataset.split(split)]
    evaluation = evaluate_classifier(
        run.classifier, run.processor, examples, dataset.labels,
        batch_size=run.options.batch_size, multi_label=dataset.multi_label, on_event=on_event,
    )  # fmt: skip
    return evaluation, split
