"""What a run needs to go on as if nothing had happened: weights, optimizer, place in the data, what was best.

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

TRAINING = ".training"  # the sub-folder of what only training needs
STATE, FEATURES, LOG = f"{TRAINING}/state.safetensors", f"{TRAINING}/features", "metrics.jsonl"
NOTE = "mlx_aimv2_state"


@dataclass
class Place:
    """Where a run is.

    Attributes:
        epoch: the one it is in, from 0.
        batch: batches of it that are done.
        step: steps that are done.
        best: the best value of the metric; None before the first validation.
        best_epoch: when that was.
        best_loss: of the validation then; of two epochs with the same metric, the one with less is better.
        stale: epochs since the best one, those in the warm-up of the learning rate left out.
        total_steps: that the run was to make.
        lines: of the log, which may hold more after a run was killed.
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
    """What training changes: trainable parameters, and a head with its running averages."""
    changed = dict(tree_flatten(model.trainable_parameters()))
    if "head" not in model:
        return changed
    return changed | {f"head.{path}": x for path, x in dict(tree_flatten(model.head.parameters())).items()}


class RunFolder:
    """The state and the log of one run, in one folder.

    Attributes:
        folder: where they lie.
    """

    def __init__(self, folder: Path, options: dict[str, Any], best: str | None = None) -> None:
        """Name the folder, the options that a run must go on with, and the file that says the best is whole."""
        self.folder, self._options, self._best = folder, options, best

    def has_best(self) -> bool:
        """Whether the best epoch is there, and whole."""
        return self._best is None or (self.folder / self._best).is_file()

    def exists(self) -> bool:
        """Whether a run has been saved here."""
        return (self.folder / STATE).is_file()

    def save(
        self, place: Place, model: nn.Module, optimizer: optim.Optimizer, ema: dict[str, mx.array] | None
    ) -> None:
        """Write the state; it is the old one or the new one at every moment.

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
        """Remove the features of a frozen encoder; the state stays, from which a run goes on with more epochs."""
        shutil.rmtree(self.folder / FEATURES, ignore_errors=True)
        with contextlib.suppress(OSError):  # a state is there, or no folder
            (self.folder / TRAINING).rmdir()

    def begin(self) -> None:
        """Forget the log of a run that was killed before it had saved a state."""
        self._cut_log(0)

    def restore(self, model: nn.Module, optimizer: optim.Optimizer, ema: dict[str, mx.array] | None) -> Place:
        """Put a saved state back in place.

        Raises:
            InputError: there is none, or it is another run's, naming what differs.
            DamagedFileError: the file is damaged.
        """
        path, place = self.folder / STATE, self.check()
        arrays = open_tensors(read_header((path,)))
        parts: dict[str, dict[str, mx.array]] = {"model": {}, "optimizer": {}, "ema": {}}
        for name, x in arrays.items():
            kind, _, rest = name.partition(".")
            parts.setdefault(kind, {})[rest] = x
        expected = {name: x.shape for name, x in saved_parameters(model).items()}
        if {name: x.shape for name, x in parts["model"].items()} != expected:
            raise InputError(f"{path} is the state of another model or method: name another --adapter-path")
        model.update(tree_unflatten(list(parts["model"].items())))
        optimizer.init(model.trainable_parameters())
        saved = {name: x.shape for name, x in dict(tree_flatten(optimizer.state)).items()}
        if {name: x.shape for name, x in parts["optimizer"].items()} != saved or set(parts["ema"]) != set(
            ema or {}
        ):
            raise DamagedFileError(f"{path} does not hold all of a run: name another --adapter-path")
        _refill(optimizer.state, tree_unflatten(list(parts["optimizer"].items())))
        if ema is not None:
            ema.update(parts["ema"])
        mx.eval(model.parameters(), optimizer.state)
        self._cut_log(place.lines)
        return place

    def check(self) -> Place:
        """Where a saved run is; without its weights it is quick to find that another run is meant.

        Raises:
            InputError: there is none, or it is another run's, naming what differs.
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
        self._check(options)
        return place

    def _check(self, options: dict[str, Any]) -> None:
        differing = [name for name, value in self._options.items() if options.get(name) != value]
        if differing:
            name = differing[0]
            raise InputError(
                f"--resume: {name} was {options.get(name)!r} in {self.folder} and is {self._options[name]!r} now:"
                " give the same again, or name another --adapter-path"
            )

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
        """All lines of the log."""
        if not (self.folder / LOG).is_file():
            return []
        return [json.loads(line) for line in (self.folder / LOG).read_text(encoding="utf-8").splitlines()]

    def _cut_log(self, lines: int) -> None:
        """Take out what a killed run logged after it last saved its state; it will be done and logged again."""
        path = self.folder / LOG
        if path.is_file():
            kept = path.read_text(encoding="utf-8").splitlines(keepends=True)[:lines]
            with replacing(path) as partial:
                partial.write_text("".join(kept), encoding="utf-8")


class Nowhere(RunFolder):
    """Keeps nothing: for a training that is only tried."""

    def __init__(self) -> None:
        """Need no folder."""
        super().__init__(Path(), {})

    def begin(self) -> None:
        """Nothing to forget."""

    def save(self, *parts: Any) -> None:
        """Nothing is written."""

    def log(self, *parts: Any) -> None:
        """Nothing is written."""


def _refill(tree: Any, values: Any) -> None:
    """Put ``values`` into the same dicts and lists, which a compiled step holds on to."""
    for key in range(len(values)) if isinstance(values, list) else values:
        if isinstance(values[key], (dict, list)):
            _refill(tree[key], values[key])
        else:
            tree[key] = values[key]
