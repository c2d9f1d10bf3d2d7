"""`mlx-aimv2 finetune`: images with labels or captions to an adapter or a head, with a report."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..finetuning.config_file import make_options, read_config
from ..finetuning.methods import METHODS
from ..finetuning.options import FinetuneOptions
from ..messages import counted, duration, size
from ..options.fields import option
from .completion import METRICS, checkpoints, choices
from .guard import NOT_ALL_DONE, interruption_note, verb
from .model_options import DeviceOptions, JsonOptions
from .output import advise, put, say
from .parameters import FieldsOf
from .screen import screen
from .tables import table

if TYPE_CHECKING:
    from ..finetuning.estimate import Estimate
    from ..finetuning.run import Finished


@dataclass(frozen=True)
class RunOptions:
    """A file with options, and whether to train."""

    config: Path | None = option(
        None, "A YAML file of options; the command line wins.", flags=("-c", "--config")
    )
    dry_run: bool = option(False, "Run two steps to estimate time and memory.")


@verb
def finetune(
    *,
    context: typer.Context,
    from_command_line: Annotated[
        dict[str, Any],
        FieldsOf(
            FinetuneOptions,
            flags={"model": "-m", "data": "-d"},
            completions={"model": checkpoints, "metric": choices(METRICS)},
        ),
    ],
    running: RunOptions,
    device: DeviceOptions,
    output: JsonOptions,
) -> None:
    """Fine-tune on labelled images: a probe on the frozen encoder, LoRA, DoRA, or all of it; or on captions."""
    from ..backend.device import require_mlx

    require_mlx()
    from ..finetuning.estimate import estimate
    from ..finetuning.run import finetune as run
    from ..training.state import STATE

    from_file = read_config(running.config) if running.config else {}
    device_in_file = from_file.pop("device", None)
    options = make_options({**from_file, **from_command_line})
    source = context.get_parameter_source("device")
    if device_in_file is not None and (source is None or source.name != "COMMANDLINE"):
        device = DeviceOptions(str(device_in_file))  # wins over the environment
    device.use_device()
    with screen() as events:
        if running.dry_run:
            _show_estimate(estimate(options, events), output.json)
        else:
            folder = Path(options.adapter_path).expanduser()
            with interruption_note(folder / STATE, f"--resume goes on with the run in {folder}"):
                finished = run(options, events)
    if not running.dry_run:
        _show(finished, options, output.json)
    if events.skipped:
        raise SystemExit(NOT_ALL_DONE)


def _show_estimate(estimate: Estimate, json: bool) -> None:
    if json:
        put(jsonlib.dumps({**dataclasses.asdict(estimate), "seconds": estimate.seconds}, indent=2))
        return
    features = f"{duration(estimate.seconds_before)} for the features, " if estimate.seconds_before else ""
    runs = f", {estimate.runs} times" if estimate.runs > 1 else ""
    epoch, total = duration(estimate.seconds_per_epoch), duration(estimate.seconds)
    rows = [
        ("trained", _trainable(estimate)),
        ("steps", f"{estimate.steps:,} in {counted(estimate.epochs, 'epoch')}{runs}"),
        ("time", f"{features}{epoch} an epoch, {total} in all"),
        ("memory", f"{size(estimate.peak_bytes)} at most"),
    ]
    if estimate.feature_bytes:
        rows.append(("disk", f"{size(estimate.feature_bytes)} of features"))
    table(("what", "estimate"), rows)


def _trainable(run: Estimate | Finished) -> str:
    share = run.trainable / run.parameters
    return f"{run.trainable:,} of {run.parameters:,} parameters ({share:.2%})"


def _show(finished: Finished, options: FinetuneOptions, json: bool) -> None:
    """Print the metrics, the folder, and commands to try next."""
    if json:
        put(jsonlib.dumps(_entry(finished), indent=2, ensure_ascii=False))
    else:
        table(("measure", finished.split), finished.evaluation.metrics.rows())
    trained = finished.trained
    if trained is not None:
        stopped = ", stopped early" if trained.stopped_early else ""
        best = f"epoch {trained.best_epoch + 1} of {trained.epochs}{stopped}"
        say(f"best was {best}: {trained.metric} {trained.best:.4f}")
    say(f"trained {_trainable(finished)} in {duration(finished.seconds)}")
    revision = f" --revision {quote(options.revision)}" if options.revision else ""
    model = f"--model {quote(options.model)}{revision} --adapter-path {quote(str(finished.folder))}"
    say(f"wrote {finished.folder}; its report: {finished.folder / 'report'}")
    _show_how_to_resume(finished, options)
    labels = "--labels 'a dog,a cat' " if options.task == "contrastive" else ""
    split = "" if finished.split == "val" else f" --split {finished.split}"
    commands = [
        f"classify photo.jpg {labels}{model}",
        f"evaluate --data {quote(options.data)}{split} {model}",
    ]
    if not METHODS[options.fine_tune_type].frozen:
        commands.append(f"fuse {model} --save-path fused")
    advise("try:", *commands)


def _show_how_to_resume(finished: Finished, options: FinetuneOptions) -> None:
    """Print how to resume the run, and whether it was too short."""
    from ..training.schedule import recommended_epochs
    from ..training.state import STATE

    if not (state := finished.folder / STATE).is_file():
        return
    nbytes = size(state.stat().st_size)
    say(
        f"{state.parent} ({nbytes}) is needed only for --resume with more --epochs: remove it if you want none"
    )
    trained, method = finished.trained, options.fine_tune_type
    if trained is None or trained.stopped_early or trained.best_epoch + 1 < trained.epochs:
        return
    epochs = recommended_epochs(METHODS[method].least_steps, -(-trained.steps // trained.epochs))
    if trained.epochs < epochs:
        say(
            f"a run of {counted(trained.steps, 'step')} is short for {method}, and the last epoch was the best:"
            f" --resume --epochs {epochs} goes on"
        )


def _entry(finished: Finished) -> dict[str, Any]:
    trained = dataclasses.asdict(finished.trained) if finished.trained else None
    return {
        "path": str(finished.folder),
        "split": finished.split,
        "trained": trained,
        "trainable": finished.trainable,
        "parameters": finished.parameters,
        "seconds": finished.seconds,
        **finished.evaluation.to_dict(),
    }
