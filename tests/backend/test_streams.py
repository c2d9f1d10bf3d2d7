"""Work divided over streams: the same numbers, and a process that ends cleanly whatever still computes."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import Future

import mlx.core as mx
import pytest

from mlx_aimv2.backend import blas, streams
from mlx_aimv2.backend.streams import evaluate_together, even_slices, streams_for

SETUP = """
    import os, signal, threading
    import mlx_aimv2
    from mlx_aimv2 import Aimv2VisionConfig
    from mlx_aimv2.backend import streams
    from mlx_aimv2.backend.threads import computing
    import mlx.core as mx
    from mlx_aimv2.models.layers import Encoder
    streams.ELEMENTS, streams.divide_threads = 1, lambda: 3
    encoder = Encoder(Aimv2VisionConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=4,
                                        num_attention_heads=2)).eval()
    x = mx.random.normal((1, 50, 64))
    mx.eval(encoder.parameters(), x)
    kept = []

    def finish():
        with computing:
            mx.eval(encoder(x)[0])

    def begin():
        with computing:
            output = encoder(x)[0]
            mx.async_eval(output)
            kept.append(output)

    def together():
        with computing:
            results = []
            for stream in streams.streams_for(1 << 30):
                with mx.stream(stream):
                    results.append(mx.exp(x) @ mx.exp(x).swapaxes(1, 2))
            streams.evaluate_together(results)

    def run(*targets, daemon=False):
        threads = [threading.Thread(target=target, daemon=daemon) for target in targets]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
"""


def ends(code):
    """The status of a program, and what it writes to stdout and stderr."""
    program = textwrap.dedent(SETUP) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_slices_are_even_and_complete(count):
    for length in range(30):
        parts = [range(length)[part] for part in even_slices(length, count)]
        assert [k for part in parts for k in part] == list(range(length))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_little_work_stays_on_one_stream(monkeypatch):
    monkeypatch.setattr(streams, "divide_threads", lambda: 4)
    counts = [len(streams_for(parts * streams.ELEMENTS)) for parts in (0, 1, 2, 3, 4, 9)]
    assert counts == [0, 0, 2, 3, 4, 4]
    assert streams_for(2 * streams.ELEMENTS - 1) == ()


def test_a_gpu_and_a_single_thread_need_no_streams(monkeypatch):
    monkeypatch.setattr(streams, "divide_threads", lambda: 1)
    assert streams_for(1 << 30) == ()
    monkeypatch.setattr(streams, "divide_threads", lambda: pytest.fail("on a GPU"))
    monkeypatch.setattr(streams, "on_cpu", lambda: False)
    assert streams_for(1 << 30) == ()


def test_a_thread_keeps_its_streams(monkeypatch):
    monkeypatch.setattr(streams, "divide_threads", lambda: 3)
    assert streams_for(1 << 30) == streams_for(1 << 30)
    own = [*streams_for(1 << 30), mx.default_stream(mx.cpu)]
    assert all(one != other for k, one in enumerate(own) for other in own[:k])


ENDS = {
    "threads": "run(*[finish] * 6)",
    "daemon threads": "run(*[finish] * 6, daemon=True)",
    "threads that end while their streams compute": "run(*[begin] * 6); mx.eval(kept); run(*[begin] * 6)",
    "daemon threads that end while their streams compute": "run(*[begin] * 6, daemon=True)",
    "the process ends while streams compute": "[begin() for _ in range(20)]",
    "streams evaluated together": "run(*[together] * 6)",
    "streams evaluated together by the main thread": "[together() for _ in range(6)]",
    "streams evaluated together by daemon threads": "run(*[together] * 6, daemon=True)",
    "an error while streams compute": """
        begin()
        try:
            encoder(mx.ones((1, 50, 63)))
        except ValueError:
            begin()
    """,
    "daemon threads that never end": """
        started = threading.Barrier(4)
        def work():
            finish()
            started.wait()
            while True:
                finish()
        for _ in range(3):
            threading.Thread(target=work, daemon=True).start()
        started.wait()
    """,
}


@pytest.mark.parametrize("name", ENDS)
def test_the_process_ends_cleanly(name):
    assert ends(textwrap.dedent(ENDS[name])) == (0, "", "")


def test_a_result_that_a_thread_began_is_finished_after_it():
    code = "run(begin); print(mx.allclose(kept[0], encoder(x)[0]).item(), flush=True)"
    assert ends(code) == (0, "True\n", "")


def test_ended_threads_leave_their_streams_to_others():
    code = """
        from mlx_aimv2.backend.threads import thread_streams
        found = []
        for _ in range(10):
            run(finish, lambda: found.extend(s for s in thread_streams(3) if s not in found))
        print(len(found) <= 6)
    """
    assert ends(code) == (0, "True\n", "")


def test_an_interrupt_ends_the_process_as_ever():
    code = """
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a test runner may have turned it off
        print("ready", flush=True)
        while True:
            finish()
    """
    program = textwrap.dedent(SETUP) + textwrap.dedent(code)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode in (-signal.SIGINT, 130) and errors.endswith("KeyboardInterrupt\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_of_a_process_with_streams_is_refused():
    code = """
        finish()
        pid = os.fork()
        if not pid:
            signal.alarm(60)
            try:
                finish()
            except mlx_aimv2.ForkedProcessError:
                os._exit(7)
            os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    assert ends(code) == (0, "7\n", "")


@pytest.fixture
def threads(monkeypatch):
    """The numbers of threads that the BLAS is set to, with two streams of one thread each."""
    calls = []
    monkeypatch.setattr(blas, "_division", lambda: blas._Division(2, 1, calls.append))
    mx.set_default_device(mx.cpu)
    return calls


def test_undivided_work_has_one_stream_and_all_threads_until_it_ends(threads):
    size = 4 * streams.ELEMENTS
    others = []
    with pytest.raises(ValueError, match="inside"), streams.undivided():
        assert streams.streams_for(size) == () and threads == [2]
        thread = threading.Thread(target=lambda: others.append(len(streams.streams_for(size))))
        thread.start()
        thread.join()
        raise ValueError("inside")
    assert threads == [2, 1] and others == [2]
    assert len(streams.streams_for(size)) == 2


def test_a_blas_that_is_not_divided_is_left_alone(monkeypatch):
    monkeypatch.setattr(blas, "_division", blas._Division)
    with streams.undivided():
        assert blas.divide_threads() == 1


def test_an_error_of_a_helper_is_raised_after_all_are_done(monkeypatch):
    class Pool:
        def submit(self, function, group):
            outcome = Future()
            outcome.set_exception(ValueError("of a helper"))
            return outcome

    monkeypatch.setattr(streams, "_helpers", Pool)
    first = mx.ones(3) + 1
    with pytest.raises(ValueError, match="of a helper"):
        evaluate_together([first, mx.ones(3) + 2])
    assert first.tolist() == [2, 2, 2]
