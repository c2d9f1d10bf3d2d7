"""Fine-tuning from options to a folder with an adapter or a head, its report, and what is needed to go on."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..adapters.task import TASK
from ..canvas import save_picture
from ..checkpoints.atomic import replacing
from ..errors import InputError, OutputError
from ..evaluation_report import write_report
from ..events import Notice, OnEvent, ignore
from ..loading import LoadOptions, load
from ..models.backend import on_cpu
from ..plots import draw_curves
from ..processing.processor import Processor
from ..storage.json_files import read_json, write_json
from .batches import sized
from .best import drop_swap, finish_swap
from .building import adapter_config
from .classification import Classification
from .contrastive import Contrastive
from .lock import locked
from .loop import Trained
from .methods import METHODS
from .options import FinetuneOptions
from .prepared import Prepared
from .record import MARKS, SKIPPED, data_account, file_mark, file_marks, relative_path
from .record import RECORD as SPLITS
from .scanning import announce, scan
from .state import STATE
from .tasks import TRAINED, towers
from .work import Measured, Work

WORKS: dict[str, Work] = {"classify": Classification(), "contrastive": Contrastive()}
REPORT, CURVES, ACCOUNT = "report", "curves.png", "data.json"


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
    evaluation: Measured
    split: str
    trainable: int
    parameters: int
    seconds: float


def finetune(options: FinetuneOptions, on_event: OnEvent | None = None) -> Finished:
    """Fine-tune an encoder on labelled pictures, or an image-text pair on captions.

    Args:
        options: what on, how, and where to.
        on_event: called with progress, metrics, notices, and broken pictures; if None, what `load` has to say of
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
    with _claimed(options) as folder:
        run = _prepared(options, dataset, folder, on_event)
        if options.resume and run.run_folder.exists():
            run.run_folder.check()
        _keep_splits(folder, _record(run, dataset), options.resume)
        return _train(run, on_event or ignore, started)


def _record(run: Prepared[Any, Any], dataset: Any) -> dict[str, Any]:
    """What was in which split; ``dataset`` still has the pictures that could not be read."""
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
        save_picture(run.folder / REPORT / CURVES, draw_curves(lines))
    parameters = count_parameters(run.model)
    seconds = time.monotonic() - started
    return Finished(run.folder, trained, evaluation, split, trainable, parameters, seconds)


def count_parameters(module: nn.Module) -> int:
    """Numbers that a model consists of."""
    return sum(x.size for x in dict(tree_flatten(module.parameters())).values())


def prepare(options: FinetuneOptions, on_event: OnEvent | None = None) -> Prepared[Any, Any]:
    """Read data and checkpoint, find broken pictures, and make what is to be trained; nothing is written.

    Args:
        options: what on, how, and where to.
        on_event: called with progress, notices, and broken pictures; see `finetune`.

    Raises:
        InputError, CheckpointError, HubError: see `finetune`.
    """
    dataset, folder = _read(options, on_event or ignore), _path(options)
    _check_folder(folder, options.resume)
    return _prepared(options, dataset, folder, on_event)


def _read(options: FinetuneOptions, on_event: OnEvent) -> Any:
    """The dataset, its images not opened yet."""
    dataset = WORKS[options.task].read(options)
    announce(dataset, on_event)
    if not dataset.val and options.val_fraction:
        raise InputError("no class has two pictures, so none can be held out: add some, or a folder val/")
    if not dataset.val:
        raise InputError("there are no pictures for validation: give a --val-fraction, or a folder val/")
    return dataset


def _prepared(
    options: FinetuneOptions, dataset: Any, folder: Path, on_event: OnEvent | None
) -> Prepared[Any, Any]:
    emit = on_event or ignore
    if options.resume and not (folder / STATE).is_file():
        emit(Notice(f"nothing was saved in {folder} yet: the run begins"))
    load_options = LoadOptions(dtype=_dtype(options))
    model, processor = load(options.model, revision=options.revision, options=load_options, on_event=on_event)
    images = sized(processor.image_processor)  # one size for all pictures
    processor = Processor(images, processor.tokenizer, processor.max_text_length)
    adapter = adapter_config(options)
    mx.random.seed(options.seed)
    trainee = WORKS[options.task].build(model, dataset, adapter, options)
    dataset = scan(dataset, images, emit)  # last, since it takes longest
    return Prepared(options, folder, dataset, trainee, processor, adapter)


def _dtype(options: FinetuneOptions) -> str:
    """What to compute in; weights that are trained themselves change by less than 16 bits can hold."""
    if options.dtype != "auto":
        return options.dtype
    trains_weights = METHODS[options.fine_tune_type].full or TRAINED in towers(options).values()
    return "float32" if on_cpu() or trains_weights else "bfloat16"


def _keep_splits(folder: Path, record: Mapping[str, Any], resume: bool) -> None:
    """Write which picture is in which split; a run that goes on must find the same.

    Raises:
        InputError: the pictures have changed since the run began.
        OutputError: the record cannot be written.
    """
    if resume and (folder / STATE).is_file() and read_json(folder / SPLITS) != record:
        raise InputError(
            f"--resume: the pictures are not those that {folder / SPLITS} names: put them back, or name another"
            " --adapter-path"
        )
    with replacing(folder / SPLITS) as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _path(options: FinetuneOptions) -> Path:
    """The folder of the run, which need not be there yet.

    Raises:
        InputError: its name is none that a folder could have.
    """
    folder = Path(os.path.expanduser(options.adapter_path))
    try:
        folder.is_dir()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{str(folder)[:200]}: {reason}: name another --adapter-path") from error
    return folder


@contextlib.contextmanager
def _claimed(options: FinetuneOptions) -> Iterator[Path]:
    """The folder of the run, which no other run may use meanwhile.

    Raises:
        InputError: it holds another run, or none to go on with, or another one is training there.
        OutputError: it cannot be written; if there is something to go on with, the message says how.
    """
    folder = _path(options)
    if not folder.is_dir():
        _check_folder(folder, options.resume)  # nothing is made for what is refused
        _make_folder(folder)
    with locked(folder):
        _check_folder(folder, options.resume)
        if options.resume and (folder / STATE).is_file():
            finish_swap(folder)
        else:
            drop_swap(folder)
        try:
            yield folder
        except OutputError as error:
            if not (folder / STATE).is_file():
                raise
            raise OutputError(f"{error}; once it can be, --resume goes on with this run") from error


def _check_folder(folder: Path, resume: bool) -> None:
    """Refuse a folder for a new run that holds another, or one without a run to go on with.

    Raises:
        InputError: it is such a one, or a file.
    """
    try:
        taken = folder.is_dir() and any(_taken(folder))
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name another --adapter-path")
    if resume and (folder / TASK).is_file() and not (folder / STATE).is_file():
        raise InputError(
            f"{folder} holds what a training left, and not its {STATE}, without which it cannot go on: name another"
            " --adapter-path"
        )
    # a run that was killed early on has left its splits, a part of its log, or only the folder
    begun = folder.is_dir() and (not taken or any((folder / name).is_file() for name in (SPLITS, STATE)))
    if resume and not begun:
        raise InputError(f"{folder} holds no run to go on with: leave --resume out")
    if taken and not resume:
        raise InputError(
            f"{folder} holds something already: --resume goes on with a run, or name another --adapter-path"
        )


def _make_folder(folder: Path) -> None:
    """Make the folder.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error


def _taken(folder: Path) -> list[Path]:
    """What a folder holds that a new run would mix with; features on disk are meant to be found."""
    return [
        path for path in folder.iterdir() if path.name not in ("features", SPLITS) and path.name[0] != "."
    ]
