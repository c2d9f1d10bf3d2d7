"""The saved state of a run (weights, optimizer, position), to resume from; and its log, `metrics.jsonl`.

Randomness needs no state: every step and every image draws from the seed and its own number.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_unflatten

from ..adapters.store import write_tensors
from ..checkpoints.files import open_tensors, read_header
from ..errors import DamagedFileError, InputError, OutputError
from ..storage.atomic import replacing

TRAINING = ".training"  # the sub-folder of files that only training needs
STATE, FEATURES, LOG = f"{TRAINING}/state.safetensors", f"{TRAINING}/features", "metrics.jsonl"
NOTE = "mlx_aimv2_state"


@dataclass
class Place:
    """The position of a run.

    Attributes:
        epoch: number of the epoch, from 0.
        batch: number of its batches that are done.
        step: number of steps that are done.
        best: the best value of the metric; None before the first validation.
        best_epoch: number of that epoch.
        best_loss: validation loss of that epoch, which decides between equal values.
        stale: epochs since the best one, without those of the warm-up.
        total_steps: number of steps of the whole run.
        lines: of the log, which may have more after a run was killed.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = -1
    best_loss: float = 0.0
    stale: int = 0
    total_steps: int = 0
    lines: int = 0


def saved_parameters(model: nn.Module) -> dict[str, mx.array]:
    """The parameters that training changes: trainable ones, and a head with its running averages."""
    changed = dict(tree_flatten(model.trainable_parameters()))
    if "head" not in model:
        return changed
    return changed | {f"head.{path}": x for path, x in dict(tree_flatten(model.head.parameters())).items()}


class SavedRun:
    """The saved state and the log of a run, in its folder."""

    def __init__(self, folder: Path, options: dict[str, Any], best: str | None = None) -> None:
        """Take the folder, options that must not change, and the file without which the best epoch is not whole."""
        self.folder, self._options, self._best = folder, options, best

    def has_best(self) -> bool:
        """Whether the files of the best epoch are whole."""
        return self._best is None or (self.folder / self._best).is_file()

    def exists(self) -> bool:
        """Whether the folder has a saved state."""
        return (self.folder / STATE).is_file()

    def save(
        self, place: Place, model: nn.Module, optimizer: optim.Optimizer, ema: dict[str, mx.array] | None
    ) -> None:
        """Replace the saved state.

        Raises:
            OutputError: it cannot be written.
        """
        arrays = {f"model.{path}": x for path, x in saved_parameters(model).items()}
        arrays |= {f"optimizer.{path}": x for path, x in dict(tree_flatten(optimizer.state)).items()}
        arrays |= {f"ema.{path}": x for path, x in (ema or {}).items()}
        note = json.dumps({"place": asdict(place), "options": self._options})
        path = self.folder / STATE
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError.writing(path, error) from error
        write_tensors(path, arrays, {NOTE: note})

    def end(self) -> None:
        """Remove the features of a frozen encoder; the state stays, so that the run can be resumed."""
        shutil.rmtree(self.folder / FEATURES, ignore_errors=True)
        with contextlib.suppress(OSError):  # it holds a state, or does not exist
            (self.folder / TRAINING).rmdir()

    def begin(self) -> None:
        """Empty the log of a run that was killed before it saved a state."""
        self._cut_log(0)

    def restore(self, model: nn.Module, optimizer: optim.Optimizer, ema: dict[str, mx.array] | None) -> Place:
        """Load the saved state into a model and an optimizer.

        Raises:
            InputError, DamagedFileError: see `check`.
        """
        path, place = self.folder / STATE, self.check()
        arrays = open_tensors(read_header((path,)))
        saved: dict[str, dict[str, mx.array]] = {"model": {}, "optimizer": {}, "ema": {}}
        for name, x in arrays.items():
            kind, _, parameter = name.partition(".")
            saved.setdefault(kind, {})[parameter] = x
        if _shapes(saved["model"]) != _shapes(saved_parameters(model)):
            raise InputError(f"{path} is the state of another model or method: name another --adapter-path")
        model.update(tree_unflatten(list(saved["model"].items())))
        optimizer.init(model.trainable_parameters())
        expected = _shapes(dict(tree_flatten(optimizer.state)))
        if _shapes(saved["optimizer"]) != expected or saved["ema"].keys() != (ema or {}).keys():
            raise DamagedFileError(f"{path} does not hold all of a run: name another --adapter-path")
        _refill(optimizer.state, tree_unflatten(list(saved["optimizer"].items())))
        if ema is not None:
            ema.update(saved["ema"])
        mx.eval(model.parameters(), optimizer.state)
        self._cut_log(place.lines)
        return place

    def check(self) -> Place:
        """The position of the saved run; no weights are loaded.

        Raises:
            InputError: there is no saved state, or it belongs to another run, naming an option that differs.
            DamagedFileError: the file is damaged.
        """
        path = self.folder / STATE
        if not path.is_file():
            raise InputError(f"{self.folder} holds no run to go on with: leave --resume out")
        header = read_header((path,))
        try:
            note = json.loads(header.metadata[NOTE])
            place, options = Place(**note["place"]), dict(note["options"])
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(f"{path} is no state of a run: leave --resume out") from error
        for name, value in self._options.items():
            if options.get(name) != value:
                raise InputError(
                    f"--resume: {name} was {options.get(name)!r} in {self.folder} and is {value!r} now: give the same"
                    " again, or name another --adapter-path"
                )
        return place

    def log(self, place: Place, line: dict[str, Any]) -> None:
        """Add a line to the log.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            with (self.folder / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OutputError.writing(self.folder / LOG, error) from error
        place.lines += 1

    def read_log(self) -> list[dict[str, Any]]:
        """The lines of the log."""
        if not (self.folder / LOG).is_file():
            return []
        return [json.loads(line) for line in (self.folder / LOG).read_text(encoding="utf-8").splitlines()]

    def _cut_log(self, lines: int) -> None:
        """Remove the lines after the last saved state; a resumed run logs them again."""
        path = self.folder / LOG
        if path.is_file():
            kept = path.read_text(encoding="utf-8").splitlines(keepends=True)[:lines]
            with replacing(path) as partial:
                partial.write_text("".join(kept), encoding="utf-8")


class Unsaved(SavedRun):
    """Saves nothing: for an estimate, or a candidate of a sweep."""

    def __init__(self) -> None:
        super().__init__(Path(), {})

    def begin(self) -> None:
        """Do nothing."""

    def save(self, *arguments: Any) -> None:
        """Do nothing."""

    def log(self, *arguments: Any) -> None:
        """Do nothing."""


def _shapes(tensors: dict[str, mx.array]) -> dict[str, tuple[int, ...]]:
    return {name: x.shape for name, x in tensors.items()}


def _refill(tree: Any, values: Any) -> None:
    """Put ``values`` into the same dicts and lists, as a compiled step refers to them."""
    for key in range(len(values)) if isinstance(values, list) else values:
        if isinstance(values[key], (dict, list)):
            _refill(tree[key], values[key])
        else:
            tree[key] = values[key]
