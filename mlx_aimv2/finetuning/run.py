"""`finetune`: from options to a folder with an adapter or a head, its report, and the state to resume from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..adapters.attach import count_trainable
from ..backend.device import on_cpu
from ..backend.random_state import caller_random_state
from ..backend.threads import computing
from ..datasets.record import MARKS, SKIPPED, data_account, file_marks, item_mark, relative_path
from ..datasets.record import RECORD as SPLITS
from ..datasets.scan import announce, scan
from ..errors import InputError
from ..evaluation.charts import draw_curves
from ..evaluation.report import write_report
from ..events import Notice, OnEvent, warn
from ..loading import LoadOptions, load
from ..processing.decode import DecodeOptions
from ..processing.processor import Processor
from ..storage.atomic import replacing
from ..storage.json_files import read_json, write_json
from ..training.batches import sized
from ..training.loop import Trained
from ..training.schedule import check_length
from ..training.state import STATE
from .caption_task import CaptionTask
from .classifier_model import adapter_config
from .label_task import LabelTask
from .methods import METHODS
from .options import FinetuneOptions
from .prepared import ClassifierRun, Data, Model, PairRun, Prepared
from .run_folder import adapter_path, check_folder, claimed
from .starting_weights import begin_at, start_folder, warn_of_known_images
from .task import FinetuningTask, TaskEvaluation
from .task_rules import TRAINED

# each task has data and a model of its own
FINETUNING_TASKS: dict[str, FinetuningTask[Any, Any]] = {
    "classify": LabelTask(),
    "contrastive": CaptionTask(),
}
OF_PATHS = ("data", "exclude", "image_column", "label_column", "caption_column", "image_root")  # options
REPORT, CURVES, ACCOUNT = "report", "curves.png", "data.json"


@dataclass(frozen=True)
class Finished:
    """The result of fine-tuning.

    Attributes:
        folder: the adapter or head, and its report; its sub-folder `.training` is only needed for `resume`.
        trained: the outcome of the training; None for knn.
        evaluation: of the best epoch, on the test images, or on the validation images if there are none.
        split: which of the two.
        trainable: number of trained parameters.
        parameters: number of parameters of the whole model.
        seconds: duration of the run.
    """

    folder: Path
    trained: Trained | None
    evaluation: TaskEvaluation
    split: str
    trainable: int
    parameters: int
    seconds: float


@computing
@caller_random_state()
def finetune(options: FinetuneOptions, on_event: OnEvent = warn, *, data: Any = None) -> Finished:
    """Fine-tune an encoder on labelled images, or an image-text pair on captions.

    Args:
        options: the data, the method, and the folder to write.
        on_event: called with progress, steps, epochs, notices and broken images.
        data: an `mlx.data.Buffer` in place of the option ``data``. Its samples have the keys ``image`` and ``label``
            (a number or the bytes of a name; several numbers) or ``caption``, and perhaps ``id``. They are held out
            by their ids, and a resumed run needs the same ones.

    Returns:
        The folder with the best epoch, and its evaluation.

    Raises:
        InputError: data, options or folder do not go together, or another run is training in the folder.
        TrainingError: the loss is not finite; the best epoch so far is kept.
        OutputError: the folder cannot be written.
        CheckpointError: the checkpoint is damaged.
        HubError: the checkpoint cannot be downloaded.
    """
    return _finetune(FINETUNING_TASKS[options.task], options, on_event, data)


def _finetune(
    task: FinetuningTask[Data, Model], options: FinetuneOptions, on_event: OnEvent, data: Any
) -> Finished:
    started = time.monotonic()
    dataset = _read(task, options, on_event, data)
    with claimed(options) as folder:
        run = _prepared(task, options, dataset, folder, on_event)
        if options.resume and run.saved.exists():
            place = run.saved.check()
            check_length(options.loop, place.step, place.epoch, folder)
        _keep_splits(folder, _record(task, run, dataset), options.resume)
        trained = task.train(run, on_event)
        split = "test" if run.dataset.test else "val"
        evaluation = task.evaluate(run, split, on_event)
        write_report(folder / REPORT, evaluation)
        with replacing(folder / REPORT / ACCOUNT) as partial:
            write_json(partial, data_account(run.dataset))
        if (lines := run.saved.read_log()) and trained is not None:
            with replacing(folder / REPORT / CURVES) as partial:
                partial.write_bytes(draw_curves(lines))
        run.saved.end()
        trainable = count_trainable(run.model) if trained is not None else 0
        parameters, seconds = count_parameters(run.model), time.monotonic() - started
        return Finished(folder, trained, evaluation, split, trainable, parameters, seconds)


def _record(task: FinetuningTask[Data, Model], run: Prepared[Data, Model], dataset: Data) -> dict[str, Any]:
    """Which image is in which split; ``dataset`` still has the images that cannot be read."""
    marks = file_marks(run.dataset)
    skipped = {relative_path(item.path, dataset.root): item_mark(item) for item in dataset.images()}
    skipped = {path: mark for path, mark in skipped.items() if path not in marks}
    return {
        **task.record(run.dataset),
        SKIPPED: sorted(skipped),
        MARKS: {**marks, **{path: mark for path, mark in skipped.items() if mark}},
    }


def count_parameters(module: nn.Module) -> int:
    """The number of parameters of a model."""
    return sum(x.size for x in dict(tree_flatten(module.parameters())).values())


@caller_random_state()
def prepare(
    options: FinetuneOptions, on_event: OnEvent = warn, *, data: Any = None
) -> ClassifierRun | PairRun:
    """Read data and checkpoint, find broken images, and build the model to train; nothing is written.

    Raises:
        InputError, CheckpointError, HubError: see `finetune`.
    """
    task, folder = FINETUNING_TASKS[options.task], adapter_path(options)
    dataset = _read(task, options, on_event, data)
    check_folder(folder, options.resume)
    return _prepared(task, options, dataset, folder, on_event)


def _read(
    task: FinetuningTask[Data, Model], options: FinetuneOptions, on_event: OnEvent, buffer: Any
) -> Data:
    """The dataset; no image is decoded yet."""
    if buffer is not None and (given := [name for name in OF_PATHS if getattr(options, name)]):
        raise InputError(
            f"the option {given[0]} is for paths, and the data is a buffer: leave one of them out"
        )
    dataset = task.read(options, buffer)
    announce(dataset, on_event)
    if not dataset.val and options.val_fraction:
        raise InputError("no class has two images, so none can be held out: add some, or a folder val/")
    if not dataset.val:
        raise InputError("there are no images for validation: give a --val-fraction, or a folder val/")
    return dataset


def _prepared(
    task: FinetuningTask[Data, Model],
    options: FinetuneOptions,
    dataset: Data,
    folder: Path,
    on_event: OnEvent,
) -> Prepared[Data, Model]:
    resumes = options.resume and (folder / STATE).is_file()
    start = None if resumes else start_folder(options)
    if options.resume and not resumes:
        on_event(Notice(f"nothing was saved in {folder} yet: the run begins", is_warning=False))
    # colours as the verbs that use the result read them by default
    decode = DecodeOptions("native" if options.decode == "native" else "exact", color_managed=True)
    load_options = LoadOptions(dtype=_dtype(options), decode=decode)
    base, processor = load(options.model, revision=options.revision, options=load_options, on_event=on_event)
    images = sized(processor.image_processor)  # one size for all images
    processor = Processor(images, processor.tokenizer, processor.max_text_length)
    adapter = adapter_config(options)
    mx.random.seed(options.seed)
    model = task.build(base, dataset, adapter, options)
    if start is not None:
        begin_at(model, start, options, on_event)
    dataset = scan(dataset, images, on_event)  # last, since it takes longest
    if start is not None:
        warn_of_known_images(dataset, start.path, on_event)
    return Prepared(options, folder, dataset, model, processor, adapter, start)


def _dtype(options: FinetuneOptions) -> str:
    """The dtype of the model; 16 bits cannot hold the change of a weight in a step."""
    if options.dtype != "auto":
        return options.dtype
    trains_weights = METHODS[options.fine_tune_type].full or TRAINED in options.towers.values()
    return "float32" if on_cpu() or trains_weights else "bfloat16"


def _keep_splits(folder: Path, record: Mapping[str, Any], resume: bool) -> None:
    """Write which image is in which split; a resumed run must have the same images.

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
