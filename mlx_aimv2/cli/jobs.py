"""Runs over many images or texts: report failures; save results however a run ends, also by Ctrl-C or an error."""

from __future__ import annotations

import contextlib
import enum
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

from ..backend.ranks import Ranks
from ..events import Progress, Skipped
from ..messages import counted
from .guard import ALL_DONE, NOT_ALL_DONE, leave, report
from .interrupts import PATIENCE_S, ending_at_once, handled_signals
from .output import say, say_once
from .screen import Screen

if TYPE_CHECKING:
    from ..errors import Aimv2Error
    from ..sources.readahead import Failed

Result = TypeVar("Result", bound="Item", contravariant=True)
ALONE = Ranks()


class End(enum.Enum):
    """How a run ends; the value completes its summary."""

    DONE = ""
    INTERRUPTED = ", interrupted"
    FAILED = ", ended by an error"


class Item(Protocol):
    """One result of a stream."""

    @property
    def index(self) -> int:
        """The index of its input."""


class Sink(Protocol[Result]):
    """Prints or writes results."""

    def add(self, name: str, result: Result) -> None:
        """Add the next result."""

    def close(self, interrupted: bool = False) -> None:
        """Finish the output, also after an interruption or a failure."""


def run(
    stream: Iterable[Result | Failed],
    names: list[str],
    sink: Sink[Result],
    events: Screen,
    verb: str,
    unit: str = "image",
    fail: Callable[[str, Aimv2Error], None] | None = None,
    ranks: Ranks = ALONE,
) -> NoReturn:
    """Pass every result of ``stream`` to ``sink``, report failures, and end the verb.

    Finished results are saved even if the run ends early: by Ctrl-C, a full disk, or NaN from the model. Ranks wait
    for each other after that, because `mlx.launch` ends all others when one fails; rank 0 prints the summary of all.

    Args:
        stream: the results, in the order of ``names``.
        names: the images or texts.
        sink: prints or writes the results.
        events: shows progress and skipped items.
        verb: past tense of the work, such as "embedded".
        unit: the noun for an item.
        fail: called with each item that has no result, and why.
        ranks: the processes that share the items.
    """
    from ..sources.readahead import Failed

    count = 0

    def finish(end: End) -> None:
        events.close()
        sink.close(end is not End.DONE)
        several = len(names) > 1 and not (ranks and end is End.DONE)
        if several or end is End.INTERRUPTED:
            say(events.summary(verb, count, counted(len(names), unit)) + end.value)

    events.start_clock()
    events(Progress(verb, 0, len(names), f"{unit}s"))
    with saving(finish) as lock:
        for item in stream:
            with lock:
                if isinstance(item, Failed):
                    events(Skipped.of(names[item.index], item.error))
                    if fail is not None:
                        fail(names[item.index], item.error)
                else:
                    sink.add(names[item.index], item)
                    count += 1
                events(Progress(verb, item.index + 1, len(names), f"{unit}s"))
    skipped = events.skipped
    if ranks:
        with ending_at_once():
            counts = ranks.gather([count, len(names), skipped])
        done, total, skipped = (sum(column) for column in zip(*counts, strict=True))
        if total > 1:
            say_once(events.summary(verb, done, counted(total, unit), skipped))
    raise SystemExit(NOT_ALL_DONE if skipped else ALL_DONE)


@contextlib.contextmanager
def saving(finish: Callable[[End], None]) -> Iterator[threading.Lock]:
    """Call ``finish`` when this block ends, also after an error or a signal; its argument says which.

    Ctrl-C, kill or a closed terminal end the process at once. Python handles a signal only after MLX returns, which
    can take many seconds, so a thread reads the signals. Signals that the process ignores stay ignored. Yields a
    lock to hold while changing what ``finish`` reads.
    """
    ending = handled_signals()
    lock, ended = threading.Lock(), threading.Event()
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def watch() -> None:
        while signals := reader.recv(1):
            if signals[0] not in ending:
                continue
            status = 128 + signals[0]  # the convention of shells: 130 for Ctrl-C
            # the lock stays taken if nobody reads the pipe, or if an earlier signal has started the save
            if not lock.acquire(timeout=PATIENCE_S):
                leave(status, flush_stdout=False)
            if not ended.is_set():
                leave(_attempt(finish, End.INTERRUPTED) or status)
            # the block has ended and is saving; keep the lock, so that a second signal ends the process

    former_handlers = {number: signal.signal(number, lambda *_: None) for number in ending}
    former_descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        try:
            yield lock
        except BrokenPipeError:  # the reader of the output has closed it: nothing to save
            with lock:
                ended.set()
            raise
        except Exception:
            with lock:
                ended.set()
            _attempt(finish, End.FAILED)
            raise
        with lock:
            ended.set()
        finish(End.DONE)
    finally:
        signal.set_wakeup_fd(former_descriptor)
        for number, handler in former_handlers.items():
            signal.signal(number, handler)
        writer.close()
        thread.join()
        reader.close()


def _attempt(finish: Callable[[End], None], end: End) -> int:
    """Call ``finish`` after an early end; return 0, or the exit status of an error, which is reported."""
    try:
        finish(end)
    except Exception as error:  # noqa: BLE001 - the process ends: report every error
        return report(error)
    return 0
