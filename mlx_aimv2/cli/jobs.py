"""What the verbs that go over many images share: finding them, running over them, saving what is done."""

from __future__ import annotations

import contextlib
import enum
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

from ..errors import InputError
from ..events import Progress, Skipped
from ..messages import counted
from .guard import ALL_DONE, NOT_ALL_DONE, leave, report
from .interrupts import PATIENCE_S, heeded
from .output import say
from .screen import Screen
from .stdin import with_names

if TYPE_CHECKING:
    from ..sources.readahead import Failed

Result = TypeVar("Result", bound="Item", contravariant=True)


class End(enum.Enum):
    """How a run ended; the value is what its summary says of it."""

    DONE = ""
    INTERRUPTED = ", interrupted"
    FAILED = ", ended by an error"


class Item(Protocol):
    """One result of a stream."""

    @property
    def index(self) -> int:
        """Its place in the input."""


class Sink(Protocol[Result]):
    """Where results go."""

    def add(self, name: str, result: Result) -> None:
        """Take the next one."""

    def close(self, interrupted: bool = False) -> None:
        """Bring out what has been taken; also after an interruption or a failure."""


def images(names: Sequence[str], exclude: Sequence[str] = ()) -> tuple[list[str], Mapping[str, str]]:
    """The images meant by the arguments of a verb, with `-` read from stdin; what is left out is said.

    Returns:
        The images, and names among them that stand for no image, with the reason: see `screen`.
    """
    from ..sources.paths import find_images

    scan = find_images(with_names(names), exclude)
    for notice in replace(scan, empty={}).notices():
        say(notice)
    if not scan.images:
        raise InputError("no images: name files, folders or patterns")
    return list(scan.images), scan.empty


def run(
    stream: Iterable[Result | Failed],
    names: list[str],
    sink: Sink[Result],
    shown: Screen,
    verb: str,
    unit: str = "image",
) -> NoReturn:
    """Bring every result of ``stream`` to ``sink``, name what failed, and end the verb.

    Whatever ends the run early (Ctrl-C, a full disk, a model that gives nonsense), what is finished is saved.

    Args:
        stream: the results, in the order of ``names``.
        names: what the stream is made of.
        sink: where results go.
        shown: shows how far it is.
        verb: what is done to them, in the past tense.
        unit: the word for one of them.
    """
    from ..sources.readahead import Failed

    count = 0

    def finish(end: End) -> None:
        shown.close()
        sink.close(end is not End.DONE)
        if len(names) > 1 or end is End.INTERRUPTED:
            say(shown.summary(verb, count, counted(len(names), unit)) + end.value)

    shown.start_clock()
    shown(Progress(verb, 0, len(names), f"{unit}s"))
    with saving(finish) as lock:
        for item in stream:
            with lock:
                if isinstance(item, Failed):
                    shown(Skipped.of(names[item.index], item.error))
                else:
                    sink.add(names[item.index], item)
                    count += 1
                shown(Progress(verb, item.index + 1, len(names), f"{unit}s"))
    raise SystemExit(NOT_ALL_DONE if shown.skipped else ALL_DONE)


@contextlib.contextmanager
def saving(finish: Callable[[End], None]) -> Iterator[threading.Lock]:
    """Call ``finish`` when this block ends, however it ends; its argument says how.

    Ctrl-C (or kill, or a closed terminal) ends the process, at once: a signal reaches Python code only when MLX
    returns, which can take many seconds, so a thread of its own hears of it. A signal that the process was started
    to ignore stays ignored. What ``finish`` reads may only be changed while the lock is held that this yields.
    """
    ending = heeded()
    lock, ended = threading.Lock(), threading.Event()
    heard, told = socket.socketpair()
    told.setblocking(False)

    def watch() -> None:
        while signals := heard.recv(1):
            if signals[0] not in ending:
                continue
            status = 128 + signals[0]  # as shells have it: 130 for Ctrl-C
            # where the other side stands still: a pipe nobody reads, or a save that was asked for twice
            if not lock.acquire(timeout=PATIENCE_S):
                leave(status, flush_stdout=False)
            if not ended.is_set():
                leave(_attempt(finish, End.INTERRUPTED) or status)
            # it is being saved already; the lock is kept, so that a second signal does not wait for that

    former_handlers = {number: signal.signal(number, lambda *_: None) for number in ending}
    former_descriptor = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        try:
            yield lock
        except BrokenPipeError:  # whoever read the output has enough: nothing to save, nothing to say
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
        told.close()
        thread.join()
        heard.close()


def _attempt(finish: Callable[[End], None], end: End) -> int:
    """Save after an early end; 0, or the exit status of a failure that was reported."""
    try:
        finish(end)
    except Exception as error:  # noqa: BLE001 - the process ends, and this says why something is lost
        return report(error)
    return 0
