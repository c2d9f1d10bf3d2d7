"""How long a run is: its steps by default, and what a run that goes on may be given."""

from __future__ import annotations

from ..errors import InputError
from ..training.state import Place
from .methods import METHODS
from .options import FinetuneOptions

EPOCHS, MOST_EPOCHS = 10, 200  # by default: at least, and at most


def planned_steps(options: FinetuneOptions, steps_per_epoch: int) -> int:
    """The steps of a whole run; where the options name no length, at least so many as its method needs.

    Args:
        options: of the run.
        steps_per_epoch: which follow from its data.
    """
    if options.iters is not None:
        return options.iters
    epochs = options.epochs or recommended_epochs(options.fine_tune_type, steps_per_epoch)
    return epochs * steps_per_epoch


def recommended_epochs(method: str, steps_per_epoch: int) -> int:
    """The epochs in which a method learns what it can, as far as that is known without trying."""
    needed = -(-METHODS[method].least_steps // steps_per_epoch)
    return min(MOST_EPOCHS, max(EPOCHS, needed))


def total_steps(options: FinetuneOptions, place: Place, planned: int) -> int:
    """The steps of a run that goes on: those planned now, or where the options name no length, those it had."""
    return place.total_steps if options.epochs is None and options.iters is None else planned


def check_length(options: FinetuneOptions, place: Place, folder: object) -> None:
    """Refuse an end that a run has passed already.

    Raises:
        InputError: the options name fewer epochs or steps than are done.
    """
    for name, wanted, done in (("iters", options.iters, place.step), ("epochs", options.epochs, place.epoch)):
        if wanted is not None and wanted < done:
            raise InputError(
                f"--resume: --{name} {wanted}: the run in {folder} has done {done:,} already: give more, or name"
                " another --adapter-path"
            )
        if wanted is not None:
            return  # steps go before epochs
