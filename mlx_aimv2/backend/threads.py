"""Computing with MLX in threads and in forked processes.

For each thread, MLX keeps what `mx.compile` made and the state of the random numbers. Both hold Python objects, and
MLX frees them when the thread's memory is released, with the interpreter's lock. Python does not wait for that. If
the interpreter shuts down meanwhile, it stops every thread that asks for the lock, and a thread that is stopped in a
C++ destructor aborts the process. Therefore all computations of this package go through `computing`:

- A thread that ends frees both while it still is a Python thread.
- Daemon threads are stopped at any point. The end of the process waits until none is inside MLX, keeps them out from
  then on, and empties what they have compiled (`Compiled`). Functions that draw random numbers run `aside`.

A forked process lacks the threads of MLX and would wait for them for ever: `computing` raises ForkedProcessError.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from ..errors import ForkedProcessError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

PROBE_S = 10.0  # if adding two numbers takes longer, the thread that computes does not exist


class _Thread:
    """The state of one thread. It is deleted when the thread ends, while that still is a Python thread."""

    def __init__(self) -> None:
        thread = threading.current_thread()
        self.is_main = thread is threading.main_thread()
        self.is_daemon = thread.daemon  # Python itself waits for other threads
        self.identity = self._identity()
        self.depth = 0  # of nested computations
        self.tracing = 0  # of nested compilations, which must be finished
        self.streams: list[Any] = []  # borrowed from the process

    def __del__(self) -> None:
        mlx = sys.modules.get("mlx.core")
        # another identity: a forked child, or the interpreter's end
        if self.is_main or mlx is None or self.identity != self._identity():
            return
        if self.is_daemon:
            _enter(self)
        for stream in [mlx.default_stream(mlx.default_device()), *self.streams]:
            mlx.synchronize(stream)  # what a thread began and did not wait for would never be done
        _process.free_streams += self.streams
        mlx.clear_streams()  # this frees everything that MLX keeps for this thread
        if self.is_daemon:
            _leave(self)

    @staticmethod
    def _identity() -> tuple[int, int]:
        return os.getpid(), threading.get_ident()


class _Current(threading.local):
    """The state of the running thread."""

    def __init__(self) -> None:
        self.thread = _Thread()


class _Process:
    """The state of the process: whether it was forked, and whether it is about to end."""

    def __init__(self) -> None:
        self.has_computed = False
        self.is_broken = False  # forked from a process that had computed
        self.is_suspect = False  # forked from a process in which other code may have computed
        self.begin()

    def begin(self) -> None:
        """Forget all threads: a fork copies only the one that calls it."""
        self.changed = threading.Condition()
        self.is_ending = False
        self.waits_at_exit = False
        self.active = 0  # daemon threads that compute
        self.caches: weakref.WeakSet[_Cache] = weakref.WeakSet()  # of daemon threads
        self.free_streams: list[Any] = []  # of threads that have ended
        self.current = _Current()

    @property
    def thread(self) -> _Thread:
        """The running thread."""
        return self.current.thread


_process = _Process()


def _after_fork() -> None:
    _process.is_broken |= _process.has_computed
    _process.is_suspect = "mlx.core" in sys.modules
    _process.begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def check_process() -> None:
    """Check that this process can compute.

    Raises:
        ForkedProcessError: the process was forked from one that had computed.
    """
    if _process.is_suspect and not _process.is_broken:
        _process.is_broken = not _adds_numbers()
        _process.is_suspect = False
    if _process.is_broken:
        raise ForkedProcessError(
            "this process was forked from one that had already computed with MLX, whose threads a fork does not copy:"
            " fork before the first model is loaded, and load in each child (gunicorn: without preload_app), or start"
            " processes with the method 'spawn' or 'forkserver'"
        )
    _process.has_computed = True


def _adds_numbers() -> bool:
    """Whether MLX still computes for this thread."""
    import mlx.core as mx

    total = mx.ones(()) + 1
    mx.async_eval(total)  # passes it to the thread that may be missing
    waiting = threading.Thread(target=mx.eval, args=(total,), daemon=True)
    waiting.start()
    waiting.join(PROBE_S)
    return not waiting.is_alive()


class _Computing(contextlib.ContextDecorator):
    """The type of `computing`."""

    def __enter__(self) -> None:
        check_process()
        thread = _process.thread
        if thread.is_daemon:
            _enter(thread)

    def __exit__(self, *_: object) -> None:
        thread = _process.thread
        if thread.depth:
            _leave(thread)


computing = _Computing()
"""A context manager and decorator for computations: it checks the process, which then does not end meanwhile.

Raises:
    ForkedProcessError: as `check_process`.
"""


def _enter(thread: _Thread) -> None:
    with _process.changed:
        if _process.is_ending and not thread.tracing:
            if thread.depth:
                _process.active -= 1
                _process.changed.notify_all()
            while True:  # the interpreter stops this thread soon, which is safe here and not inside MLX
                _process.changed.wait()
        if not thread.depth:
            _process.active += 1
            if not _process.waits_at_exit:
                _process.waits_at_exit = True
                atexit.register(_end)
    thread.depth += 1


def _leave(thread: _Thread) -> None:
    thread.depth -= 1
    if not thread.depth:
        with _process.changed:
            _process.active -= 1
            _process.changed.notify_all()


def _end() -> None:
    """Wait for daemon threads to leave MLX, keep them out of it, and empty their caches."""
    with _process.changed:
        _process.is_ending = True
        while _process.active:
            _process.changed.wait()
        for cache in _process.caches:
            cache.function = None


def thread_streams(count: int) -> tuple[Any, ...]:
    """``count`` CPU streams, which only the running thread uses until it ends.

    Other threads use them again afterwards, because MLX never ends the system's thread of a stream.
    """
    import mlx.core as mx

    streams = _process.thread.streams
    while len(streams) < count:
        try:
            streams.append(_process.free_streams.pop())
        except IndexError:
            streams.append(mx.new_thread_unsafe_stream(mx.Device(mx.DeviceType.cpu)))
    return tuple(streams[:count])


def aside(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """``function``, run in a new thread if the current one is a daemon thread.

    Its results must be evaluated, or never be used.
    """

    @functools.wraps(function)
    def run(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        if not _process.thread.is_daemon:
            return function(*arguments, **options)
        outcome: Future[Result] = Future()

        def work() -> None:
            try:
                with computing:
                    outcome.set_result(function(*arguments, **options))
            except BaseException as error:  # noqa: BLE001 - `result` raises it
                outcome.set_exception(error)

        thread = threading.Thread(target=work, daemon=False)
        thread.start()
        thread.join()
        return outcome.result()

    return run


class _Cache:
    """The compiled form of a function in one thread."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function: Callable[..., Any] | None = function


class Compiled(threading.local):
    """A function from arrays to arrays, compiled by `mx.compile` once per thread, and freed when the thread ends."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        import mlx.core as mx

        self._cache = _Cache(mx.compile(function, **options))
        self._is_daemon = threading.current_thread().daemon
        if self._is_daemon:
            with _process.changed:
                _process.caches.add(self._cache)

    def __call__(self, *arguments: Any) -> Any:
        """Call the compiled function."""
        cache = self._cache
        if not self._is_daemon:
            return cache.function(*arguments)  # type: ignore[misc]  # `_end` empties only the caches of daemon threads
        with computing:
            thread = _process.thread
            thread.tracing += 1
            try:
                return cache.function(*arguments)  # type: ignore[misc]  # no daemon thread gets here after `_end`
            finally:
                thread.tracing -= 1
