"""Threads and forks: right results, a clean end of the process, one clear refusal."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_aimv2 import Embedder, ZeroShotClassifier, load
from mlx_aimv2.backend import threads as module
from mlx_aimv2.backend.threads import Compiled, aside, computing
from mlx_aimv2.errors import ForkedProcessError
from mlx_aimv2.models import kernels

SETUP = """
    import asyncio, os, sys, threading, _thread
    from concurrent.futures import ThreadPoolExecutor
    import mlx_aimv2
    from mlx_aimv2 import Embedder, ZeroShotClassifier, load
    import mlx.core as mx
    import numpy as np

    images = [np.random.default_rng(k).integers(0, 256, (64, 64, 3), dtype=np.uint8) for k in range(6)]
"""
LOADED = """
    model, processor = load("demo")
    embedder = Embedder(model, processor)
"""
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def ends(code, setup=SETUP + LOADED):
    """The status of a program, and what it writes to stdout and stderr."""
    program = textwrap.dedent(setup) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=False
    )
    return done.returncode, done.stdout, done.stderr


JOINED = """
    from mlx_aimv2.models.kernels import ACTIVATIONS

    def a_pool():
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(embedder.images, images))

    def threads(daemon=False):
        threads = [threading.Thread(target=embedder.images, args=(p,), daemon=daemon) for p in images]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]

    def daemon_threads():
        threads(daemon=True)

    def to_thread():
        async def main():
            await asyncio.gather(*(asyncio.to_thread(embedder.images, image) for image in images))
        asyncio.run(main())

    def nested_pools():
        def outer(image):
            with ThreadPoolExecutor(2) as pool:
                return list(pool.map(embedder.images, [image, image]))
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(outer, images))

    def models_of_their_own():
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda image: Embedder(*load("demo")).images(image), images[:3]))

    def classifiers():
        classifier = ZeroShotClassifier(model, processor, labels=["a red circle", "a blue square"])
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(classifier, images))
            list(pool.map(lambda _: ZeroShotClassifier(model, processor, labels=["a", "b"]), range(3)))

    def the_model_itself():
        def work(image):
            output = model(**processor(images=[image], text=["a red circle"]))
            mx.eval(output.logits_per_image)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(work, images))

    def other_activations():
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda activation: mx.eval(activation(mx.ones((4, 4)))), ACTIVATIONS.values()))

    def threads_that_python_does_not_know():
        done = threading.Semaphore(0)
        def work():
            embedder.images(images[0])
            done.release()
        for _ in range(3):
            _thread.start_new_thread(work, ())
        [done.acquire() for _ in range(3)]

    def streams_left_open():
        small = Embedder(model, processor, batch_size=1)
        def work(_):
            stream = small.stream(images * 2)
            next(stream)
            return stream
        with ThreadPoolExecutor(2) as pool:
            kept.extend(pool.map(work, range(2)))

    kept = []
    cases = [a_pool, threads, daemon_threads, to_thread, nested_pools, models_of_their_own, classifiers,
             the_model_itself, other_activations, threads_that_python_does_not_know, streams_left_open]
    last = cases.pop(int(os.environ["LAST"]))
    others = [threading.Thread(target=case) for case in (cases if last is a_pool else ())]
    [thread.start() for thread in others]
    [thread.join() for thread in others]
    last()
"""


@pytest.mark.parametrize("last", range(11))
def test_the_process_ends_cleanly_after_threads_have_ended(last, monkeypatch):
    """Each case ends just before the process; in the first process all others run at the same time before it."""
    monkeypatch.setenv("LAST", str(last))
    assert ends(JOINED) == (0, "", "")


@pytest.mark.parametrize("run", range(3))
def test_the_process_ends_cleanly_while_threads_still_run(run):
    code = """
        computed, loaded = threading.Event(), threading.Event()
        def compute():
            while True:
                embedder.images(images[0])
                embedder.texts(["a red circle"])
                computed.set()
                sum(range(10_000))
        def work():
            while True:
                Embedder(*load("demo")).images(images[0])
                loaded.set()
        for target in 2 * [compute] + [work]:
            threading.Thread(target=target, daemon=True).start()
        computed.wait()
        loaded.wait()
        for image in images:  # nobody waits for these
            threading.Thread(target=embedder.images, args=(image,)).start()
    """
    assert ends(code) == (0, "", "")


def test_training_in_a_thread_ends_cleanly(tmp_path):
    code = f"""
        from pathlib import Path
        from PIL import Image
        from mlx_aimv2 import FinetuneOptions, finetune
        root = Path({str(tmp_path)!r})
        for k, image in enumerate(images):
            (root / "data" / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / "data" / "ab"[k % 2] / f"{{k}}.png")
        options = FinetuneOptions(data=str(root / "data"), model="demo", fine_tune_type="lora",
                                  epochs=1, batch_size=2, adapter_path=str(root / "adapter"))
        with ThreadPoolExecutor(1) as pool:
            print(pool.submit(finetune, options).result().evaluation is not None)
    """
    assert ends(code)[:2] == (0, "True\n")


def test_many_threads_give_the_bits_of_one(tiny_pair):
    model, processor = load(tiny_pair)
    embedder = Embedder(model, processor)
    images = [np.random.default_rng(k).integers(0, 256, (64, 80, 3), dtype=np.uint8) for k in range(16)]
    words = [f"a {k} b" for k in range(16)]
    classifier = ZeroShotClassifier(model, processor, labels=["a", "b"])

    def everything(k):
        return embedder.images(images[k]), embedder.texts(words[k]), classifier(images[k])

    expected = [everything(k) for k in range(16)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(everything, range(16)))
    for (image, text, labels), (own_image, own_text, own_labels) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(image, own_image)
        np.testing.assert_array_equal(text, own_text)
        assert labels == own_labels


def test_a_model_loaded_in_a_thread_that_has_ended_gives_the_same_bits(tiny_pair):
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    loaded = []

    def work():
        loaded.append(Embedder(*load(tiny_pair)))

    for daemon in (False, True):
        thread = threading.Thread(target=work, daemon=daemon)
        thread.start()
        thread.join()
    expected = Embedder(*load(tiny_pair)).images(image)
    for embedder in loaded:
        np.testing.assert_array_equal(embedder.images(image), expected)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("silu", nn.silu),
        ("gelu", nn.gelu),
        ("gelu_pytorch_tanh", nn.gelu_approx),
        ("quick_gelu", nn.gelu_fast_approx),
        ("relu", nn.relu),
    ],
)
def test_activations_have_the_bits_of_mlx(name, function, dtype):
    x = (4 * mx.random.normal((33, 65), key=mx.random.key(0))).astype(dtype)
    assert mx.array_equal(kernels.ACTIVATIONS[name](x), function(x)).item()


def test_every_thread_compiles_for_itself_and_keeps_what_it_has():
    traced = []
    double = Compiled(lambda x: (traced.append(threading.get_ident()), x * 2)[1])

    def work(_=None):
        return [double(mx.array(float(k))).item() for k in range(3)]

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()
        work()
        count = len(traced)
        assert len(set(traced)) == 2
        assert list(pool.map(work, range(2))) == [[0, 2, 4]] * 2
        assert work() == [0, 2, 4]
    assert len(traced) == count


@pytest.mark.parametrize("daemon", [False, True])
def test_aside_gives_the_result_or_the_error(daemon):
    found = []

    def work():
        found.append(aside(lambda a, b: (a / b, threading.current_thread().daemon))(1, b=2))
        try:
            aside(lambda: 1 / 0)()
        except ZeroDivisionError as error:
            found.append(str(error))

    thread = threading.Thread(target=work, daemon=daemon)
    thread.start()
    thread.join()
    assert found == [(0.5, False), "division by zero"]


def test_the_end_waits_for_daemon_threads_that_compute_and_keeps_out_others():
    code = """
        import atexit
        from mlx_aimv2.backend.threads import computing
        go, inside = threading.Event(), threading.Barrier(3)
        def finish():
            with computing:
                inside.wait()
                go.wait()
                print("finished", flush=True)
        def enter_again():
            with computing:
                inside.wait()
                go.wait()
                with computing:  # never entered: the end has begun
                    print("entered")
            print("left")
        for target in (finish, enter_again):
            threading.Thread(target=target, daemon=True).start()
        inside.wait()
        atexit.register(go.set)  # before the package's own, which waits
    """
    assert ends(code, setup=SETUP) == (0, "finished\n", "")


# --- forks

FORK = """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        import signal
        signal.alarm(120)  # a child that waits for ever is killed
        {child}
        sys.stdout.flush()
        sys.exit(0)
    print("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def forked(parent, child):
    return ends(textwrap.dedent(parent) + fork(child), setup=SETUP)


def fork(child):
    child = textwrap.indent(textwrap.dedent(child), " " * 4).strip()
    return textwrap.dedent(FORK).replace("{child}", child)


@needs_fork
def test_a_child_computes_where_the_parent_has_not():
    child = fork("print(Embedder(*load('demo')).images(images[:2]).shape)")
    parent = "from mlx_aimv2.loading import inspect; inspect('demo')" + child
    parent = child + parent + "x = mx.array(np.ones(3)) + 1; mx.default_stream(mx.cpu)" + child
    assert ends(parent, setup=SETUP) == (0, 3 * "(2, 192)\nstatus 0\n", "")


ENTRIES = {
    "load": "load('demo')",
    "images": "embedder.images(images)",
    "stream": "list(embedder.stream(images))",
    "a stream that was open": "list(opened)",
    "texts": "embedder.texts('a')",
    "classifier": "classifier(images[0])",
    "new classifier": "ZeroShotClassifier(model, processor, labels=['a', 'b'])",
    "model": "model(**processor(images=images[:1], text=['a']))",
    "features": "model.get_image_features(processor(images=images[:1])['pixel_values'])",
    "training": "finetune(FinetuneOptions(data='.', model='demo', adapter_path='nowhere'))",
    "convert": "mlx_aimv2.convert('demo', 'nowhere')",
    "export": "mlx_aimv2.export('demo', 'nowhere', 'timm')",
    "a thread": "ThreadPoolExecutor(1).submit(embedder.images, images[0]).result()",
}


@needs_fork
def test_a_child_refuses_everything_that_would_wait_for_ever(tmp_path):
    parent = textwrap.dedent(LOADED) + textwrap.dedent(f"""
        from mlx_aimv2.finetuning.options import FinetuneOptions
        from mlx_aimv2.finetuning.run import finetune
        os.chdir({str(tmp_path)!r})
        classifier = ZeroShotClassifier(model, processor, labels=["a", "b"])
        opened = Embedder(model, processor, batch_size=1).stream(images)
        next(opened)
        entries = {ENTRIES!r}
    """)
    child = """
        for name, code in entries.items():
            try:
                eval(code)
                print(name, "passed")
            except Exception as error:
                print(name, type(error).__name__, "load in each child" in str(error) and "'spawn'" in str(error))
        print(processor.image_processor(images[0]).shape, len(processor(images=images, text=["a"])))
    """
    status, out, err = forked(parent, child)
    refused = [f"{name} ForkedProcessError True" for name in ENTRIES]
    assert out.splitlines() == [*refused, "(84, 84, 3) 3", "status 0"]
    assert (status, err) == (0, "") and not (tmp_path / "nowhere").exists()


@needs_fork
def test_a_child_of_a_parent_that_computed_with_mlx_alone_is_refused():
    child = """
        from mlx_aimv2.backend import threads as computing
        computing.PROBE_S = 1.0
        try:
            load("demo")
        except mlx_aimv2.errors.ForkedProcessError as error:
            print(error)
    """
    status, out, _ = forked("import mlx_aimv2.errors; mx.eval(mx.ones(3) + 1)", child)
    assert status == 0 and out.startswith(
        "this process was forked from one that had already computed with MLX"
    )


def test_a_child_of_a_parent_that_has_computed_is_refused_without_a_trial(monkeypatch):
    process = module._Process()
    process.has_computed = True
    monkeypatch.setattr(module, "_process", process)
    monkeypatch.setattr(module, "_adds_numbers", lambda: pytest.fail("it waits for the missing threads"))
    module._after_fork()
    with pytest.raises(ForkedProcessError, match="forked"):
        module.check_process()


def test_the_refusal_says_what_to_do(monkeypatch):
    monkeypatch.setattr(module._process, "is_broken", True)
    with pytest.raises(
        ForkedProcessError, match="fork before the first model is loaded, and load in each child"
    ):
        computing.__enter__()


SPAWNING = """
import multiprocessing
import numpy as np
from mlx_aimv2 import Embedder, load

def embed(seed):
    image = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Embedder(*load("demo")).images(image)

if __name__ == "__main__":
    expected = embed(0)
    for method in ("spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print((pool.apply(embed, (0,)) == expected).all())
"""


@needs_fork
def test_processes_started_otherwise_compute(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(SPAWNING)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\nTrue\n", "")


def test_a_thread_gives_back_what_mlx_keeps_for_it_before_it_ends(monkeypatch):
    cleared = []
    clear = mx.clear_streams
    monkeypatch.setattr(mx, "clear_streams", lambda: (cleared.append(threading.get_ident()), clear()))

    def work():
        with computing:
            mx.eval(mx.ones(2) + 1)

    for daemon in (False, True):
        thread = threading.Thread(target=work, daemon=daemon)
        thread.start()
        thread.join()
        assert cleared == [thread.ident]
        cleared.clear()
    work()
    assert cleared == []  # the main thread keeps its own
