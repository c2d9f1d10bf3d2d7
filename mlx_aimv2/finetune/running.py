"""Fine-tuning from options to a folder with an adapter or a head, its report, and what is needed to go on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..checkpoints.atomic import replacing
from ..checkpoints.files import read_json
from ..errors import InputError, OutputError
from ..evaluation import save_picture, write_report
from ..events import Notice, OnEvent, ignore
from ..loading import LoadOptions, load
from ..models.backend import on_cpu
from ..plots import draw_curves
from ..processing.processor import Processor
from .batches import sized
from .building import adapter_config
from .classification import Classification
from .contrastive import Contrastive
from .loop import Trained
from .methods import METHODS
from .options import FinetuneOptions
from .prepared import Prepared
from .scanning import scan
from .state import STATE
from .tasks import TRAINED, towers
from .work import Measured, Work

WORKS: dict[str, Work] = {"classify": Classification(), "contrastive": Contrastive()}
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
        InputError: data, options or folder do not go together.
        TrainingError: the loss is not finite; the best epoch so far is kept.
        OutputError: the folder cannot be written.
        CheckpointError: the checkpoint is damaged; HubError: it cannot be had.
    """
    started = time.monotonic()
    run, work = prepare(options, on_event), WORKS[options.task]
    emit = on_event or ignore
    trained, trainable = work.train(run, emit)
    split = "test" if run.dataset.test else "val"
    evaluation = work.evaluate(run, split, emit)
    write_report(run.folder / REPORT, evaluation)
    if (lines := run.run_folder.read_log()) and trained is not None:
        save_picture(run.folder / REPORT / CURVES, draw_curves(lines))
    parameters = count_parameters(run.model)
    seconds = time.monotonic() - started
    return Finished(run.folder, trained, evaluation, split, trainable, parameters, seconds)


def count_parameters(module: nn.Module) -> int:
    """Numbers that a model consists of."""
    return sum(x.size for x in dict(tree_flatten(module.parameters())).values())


def prepare(
    options: FinetuneOptions, on_event: OnEvent | None = None, keep: bool = True
) -> Prepared[Any, Any]:
    """Read data and checkpoint, find broken pictures, and make what is to be trained.

    Args:
        options: what on, how, and where to.
        on_event: called with progress, notices, and broken pictures; see `finetune`.
        keep: make the folder of the run; without it nothing is written.

    Raises:
        InputError, OutputError, CheckpointError, HubError: see `finetune`.
    """
    work, emit = WORKS[options.task], on_event or ignore
    dataset = work.read(options)
    if not dataset.val:
        raise InputError("there are no pictures for validation: give a --val-fraction, or a folder val/")
    folder = _run_folder(options)
    if keep:
        _make_folder(folder)
    if options.resume and not (folder / STATE).is_file():
        emit(Notice(f"nothing was saved in {folder} yet: the run begins"))
    load_options = LoadOptions(dtype=_dtype(options))
    model, processor = load(options.model, revision=options.revision, options=load_options, on_event=on_event)
    images = sized(processor.image_processor)  # one size for all pictures
    processor = Processor(images, processor.tokenizer, processor.max_text_length)
    adapter = adapter_config(options)
    dataset = scan(dataset, images, emit)
    mx.random.seed(options.seed)
    trainee = work.build(model, dataset, adapter, options)
    if keep:
        _keep_splits(folder, work.record(dataset), options.resume)
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
