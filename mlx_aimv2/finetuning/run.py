"""Fine-tuning from options to a folder with an adapter or a head, its report, and what is needed to go on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..backend.device import on_cpu
from ..backend.threads import computing
from ..datasets.record import MARKS, SKIPPED, data_account, file_mark, file_marks, relative_path
from ..datasets.record import RECORD as SPLITS
from ..datasets.scan import announce, scan
from ..errors import InputError
from ..evaluation.charts import draw_curves
from ..evaluation.report import write_report
from ..events import Notice, OnEvent, ignore
from ..loading import LoadOptions, load
from ..processing.decode import DecodeOptions
from ..processing.processor import Processor
from ..storage.atomic import replacing
from ..storage.json_files import read_json, write_json
from ..training.batches import sized
from ..training.loop import Trained
from ..training.state import STATE
from .caption_task import Contrastive
from .classifier_model import adapter_config
from .label_task import Classification
from .methods import METHODS
from .options import FinetuneOptions
from .prepared import Prepared
from .run_folder import adapter_path, check_folder, claimed
from .run_length import check_length
from .starting_weights import begin_at, start_folder, tell_of_known_images
from .task import Measured, Work
from .tasks import TRAINED, towers

WORKS: dict[str, Work] = {"classify": Classification(), "contrastive": Contrastive()}
REPORT, CURVES, ACCOUNT = "report", "curves.png", "data.json"


@dataclass(frozen=True)
class Finished:
    """What fine-tuning left.

    Attributes:
        folder: the adapter or head, its report, and in `.training` the state from which more epochs go on; without
            that sub-folder everything else works.
        trained: how it went; None for a method without training.
        evaluation: of the best epoch, on the test images, or on those for validation where there are none.
        split: which of the two.
        trainable: numbers that were trained.
        parameters: of the whole model.
        seconds: it took.
    """

    folder: Path
    trained: Trained | None
    evaluation: Measured
    split: str
    trainable: int
    parameters: int
    seconds: float


@computing
def finetune(options: FinetuneOptions, on_event: OnEvent | None = None) -> Finished:
    """Fine-tune an encoder on labelled images, or an image-text pair on captions.

    Args:
        options: what on, how, and where to.
        on_event: called with progress, metrics, notices, and broken images; if None, what `load` has to say of
            the checkpoint is a warning.

    Returns:
        What was best, where it is, and how good it is.

    Raises:
        InputError: data, options or folder do not go together, or another run is training in the folder.
        TrainingError: the loss is not finite; the best epoch so far is kept.
        OutputError: the folder cannot be written.
        CheckpointError: the checkpoint is damaged; HubError: it cannot be had.
    """
    started = time.monotonic()
    dataset = _read(options, on_event or ignore)
    with claimed(options) as folder:
        run = _prepared(options, dataset, folder, on_event)
        if options.resume and run.run_folder.exists():
            check_length(options, run.run_folder.check(), folder)
        _keep_splits(folder, _record(run, dataset), options.resume)
        return _train(run, on_event or ignore, started)


def _record(run: Prepared[Any, Any], dataset: Any) -> dict[str, Any]:
    """What was in which split; ``dataset`` still has the images that could not be read."""
    marks = file_marks(run.dataset)
    everything = [each.path for split in ("train", "val", "test") for each in dataset.split(split)]
    skipped = {relative_path(path, dataset.root): file_mark(path) for path in everything}
    skipped = {path: mark for path, mark in skipped.items() if path not in marks}
    return {
        **WORKS[run.options.task].record(run.dataset),
        SKIPPED: sorted(skipped),
        MARKS: {**marks, **{path: mark for path, mark in skipped.items() if mark}},
    }


def _train(run: Prepared[Any, Any], emit: OnEvent, started: float) -> Finished:
    work = WORKS[run.options.task]
    trained, trainable = work.train(run, emit)
    split = "test" if run.dataset.test else "val"
    evaluation = work.evaluate(run, split, emit)
    write_report(run.folder / REPORT, evaluation)
    with replacing(run.folder / REPORT / ACCOUNT) as partial:
        write_json(partial, data_account(run.dataset))
    if (lines := run.run_folder.read_log()) and trained is not None:
        with replacing(run.folder / REPORT / CURVES) as partial:
            partial.write_bytes(draw_curves(lines))
    run.run_folder.end()
    parameters = count_parameters(run.model)
    seconds = time.monotonic() - started
    return Finished(run.folder, trained, evaluation, split, trainable, parameters, seconds)


def count_parameters(module: nn.Module) -> int:
    """Numbers that a model consists of."""
    return sum(x.size for x in dict(tree_flatten(module.parameters())).values())


def prepare(options: FinetuneOptions, on_event: OnEvent | None = None) -> Prepared[Any, Any]:
    """Read data and checkpoint, find broken images, and make what is to be trained; nothing is written.

    Args:
        options: what on, how, and where to.
        on_event: called with progress, notices, and broken images; see `finetune`.

    Raises:
        InputError, CheckpointError, HubError: see `finetune`.
    """
    dataset, folder = _read(options, on_event or ignore), adapter_path(options)
    check_folder(folder, options.resume)
    return _prepared(options, dataset, folder, on_event)


def _read(options: FinetuneOptions, on_event: OnEvent) -> Any:
    """The dataset, its images not opened yet."""
    dataset = WORKS[options.task].read(options)
    announce(dataset, on_event)
    if not dataset.val and options.val_fraction:
        raise InputError("no class has two images, so none can be held out: add some, or a folder val/")
    if not dataset.val:
        raise InputError("there are no images for validation: give a --val-fraction, or a folder val/")
    return dataset


def _prepared(
    options: FinetuneOptions, dataset: Any, folder: Path, on_event: OnEvent | None
) -> Prepared[Any, Any]:
    emit, goes_on = on_event or ignore, options.resume and (folder / STATE).is_file()
    start = None if goes_on else start_folder(options)
    if options.resume and not goes_on:
        emit(Notice(f"nothing was saved in {folder} yet: the run begins"))
    # colours as the verbs that use the result read them by default
    decode = DecodeOptions(color_managed=True)
    load_options = LoadOptions(dtype=_dtype(options), decode=decode)
    model, processor = load(options.model, revision=options.revision, options=load_options, on_event=on_event)
    images = sized(processor.image_processor)  # one size for all images
    processor = Processor(images, processor.tokenizer, processor.max_text_length)
    adapter = adapter_config(options)
    mx.random.seed(options.seed)
    trainee = WORKS[options.task].build(model, dataset, adapter, options)
    if start is not None:
        begin_at(trainee, start, options, emit)
    dataset = scan(dataset, images, emit)  # last, since it takes longest
    if start is not None:
        tell_of_known_images(dataset, start.path, emit)
    return Prepared(options, folder, dataset, trainee, processor, adapter, start)


def _dtype(options: FinetuneOptions) -> str:
    """What to compute in; weights that are trained themselves change by less than 16 bits can hold."""
    if options.dtype != "auto":
        return options.dtype
    trains_weights = METHODS[options.fine_tune_type].full or TRAINED in towers(options).values()
    return "float32" if on_cpu() or trains_weights else "bfloat16"


def _keep_splits(folder: Path, record: Mapping[str, Any], resume: bool) -> None:
    """Write which image is in which split; a run that goes on must find the same.

    Raises:
        InputError: the images have changed since the run began.
        OutputError: the record cannot be written.
    """
    if resume and (folder / STATE).is_file() and read_json(folder / SPLITS) != record:
        raise InputError(
            f"--resume: the images are not those that {folder / SPLITS} names: put them back, or name another"
            " --adapter-path"
        )
    with replacing(folder / SPLITS) as partial:
        write_json(partial, record)
