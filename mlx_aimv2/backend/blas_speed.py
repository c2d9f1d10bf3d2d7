"""Measuring BLAS libraries, each in a process of its own; run as a script.

    python blas_speed.py '[["libopenblas.so.0", {"OPENBLAS_CORETYPE": "SkylakeX"}], ["libmkl_rt.so.3", {}]]'

prints the rate of each in GFLOP/s with one thread, in the same order, 0 for what cannot be loaded. It imports the
standard library only, and never the package.
"""

import ctypes
import json
import os
import signal
import sys
import time

ROWS, DIM = 128, 1024  # the tokens of half an image, and the width of the large model
THREADS = ("openblas_set_num_threads", "MKL_Set_Num_Threads", "bli_thread_set_num_threads")
LIMIT_S = 3  # for a library that hangs
ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE = 101, 111, 112


def gflops(name: str) -> float:
    """The best of five products of (128, 1024) with a transposed (1024, 1024), with one thread."""
    library = ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    for function in THREADS:
        if hasattr(library, function):
            getattr(library, function)(1)
    x, weight, out = ((ctypes.c_float * (rows * DIM))() for rows in (ROWS, DIM, ROWS))
    order = (ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE, ROWS, DIM, DIM)
    operands = (ctypes.c_float(1), x, DIM, weight, DIM, ctypes.c_float(0), out, DIM)
    seconds = []
    for _ in range(6):  # the first one also starts the library
        start = time.perf_counter()
        library.cblas_sgemm(*order, *operands)
        seconds.append(time.perf_counter() - start)
    return 2e-9 * ROWS * DIM * DIM / min(seconds[1:])


def in_child(name: str, environment: dict[str, str]) -> float:
    """`gflops` in a forked process, 0 if that fails: a library may crash or hang, and cannot be unloaded."""
    reader, writer = os.pipe()
    if not os.fork():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIMIT_S)
        os.dup2(2, 1)  # what a library prints is not a result
        os.environ.update(environment)
        try:
            os.write(writer, str(gflops(name)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.wait()
    return float(text or 0)


if __name__ == "__main__":
    print(json.dumps([in_child(*candidate) for candidate in json.loads(sys.argv[1])]))
