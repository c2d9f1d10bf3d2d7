"""The order of BLAS libraries: measured once for a machine and its libraries, then read from a file."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mlx_aimv2.backend import blas_choice
from mlx_aimv2.backend.blas_choice import Candidate, fastest_first

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a BLAS is loaded on Linux only")
AVX512 = {"avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl"}
A, B, C = (f"/lib/lib{name}.so" for name in "abc")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with a cache folder and a measurement of its own: ``rates`` to change, ``measured`` to count."""

    machine = SimpleNamespace(rates={A: 10.0, B: 30.0, C: 20.0}, measured=0)

    def measure(candidates):
        machine.measured += 1
        return None if machine.rates is None else [machine.rates[candidate.name] for candidate in candidates]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(blas_choice, "_measure", measure)
    monkeypatch.setattr(blas_choice, "_processor", lambda: ("Some CPU", AVX512))
    return machine


def order(names=(A, B, C)):
    return [candidate.name for candidate in fastest_first(names)]


def stored(tmp_path):
    return list(tmp_path.glob("mlx-aimv2/*"))


def test_the_fastest_comes_first_and_is_measured_once(machine, tmp_path):
    assert order() == order() == [B, C, A]
    assert machine.measured == 1 and len(stored(tmp_path)) == 1


def test_a_library_that_does_not_work_loses_its_place(machine):
    machine.rates = {A: 10.0, B: 0.0, C: 20.0}
    assert order() == [C, A]


def test_where_no_library_works_none_is_loaded_and_the_next_start_measures_again(machine, tmp_path):
    machine.rates = dict.fromkeys((A, B, C), 0.0)
    assert order() == order() == []
    assert machine.measured == 2 and stored(tmp_path) == []


def test_where_nothing_can_be_measured_the_order_is_kept_and_not_stored(machine, tmp_path):
    machine.rates = None
    assert order() == [A, B, C] and stored(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_processor", lambda: ("Another CPU", AVX512)),
        ("_version", lambda name: 1.0),
        ("os.sched_getaffinity", lambda process: {0}),
    ],
)
def test_another_machine_or_library_is_measured_and_both_are_kept(
    machine, tmp_path, monkeypatch, name, value
):
    order()
    with monkeypatch.context() as patch:
        patch.setattr(f"mlx_aimv2.backend.blas_choice.{name}", value)
        order()
        assert machine.measured == 2
    order()
    assert machine.measured == 2 and len(stored(tmp_path)) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"rates": [1, 2, 3]}', "\x00", "short", "words"])
def test_a_damaged_cache_is_measured_again_and_replaced(machine, tmp_path, content):
    order()
    (file,) = stored(tmp_path)
    key = json.loads(file.read_text())["key"]
    rates = {"short": [1.0], "words": ["fast", 1, 2]}.get(content)
    file.write_text(json.dumps({"key": key, "rates": rates}) if rates else content)
    assert order() == order() == [B, C, A]
    assert machine.measured == 2


def test_a_cache_that_cannot_be_written_is_no_error(machine, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", "/dev/null", "/proc/nowhere"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        assert order() == [B, C, A]
    assert machine.measured == 3


def test_without_a_home_folder_nothing_is_stored(machine, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    assert order() == [B, C, A] and list(tmp_path.iterdir()) == []


def test_a_frozen_program_measures_nothing(machine, monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert order() == [A, B, C] and machine.measured == 0


def test_a_single_library_is_not_measured(machine):
    assert fastest_first([A]) == [Candidate(A)] and machine.measured == 0


@pytest.mark.parametrize(
    ("flags", "kernels"), [(AVX512, "SkylakeX"), ({"avx2", "fma"}, "Haswell"), ({"sse2"}, None)]
)
def test_openblas_is_tried_with_kernels_for_the_processor(flags, kernels, monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    named = [Candidate("libopenblas.so.0", {"OPENBLAS_CORETYPE": kernels})] if kernels else []
    found = blas_choice._variants(["libopenblas.so.0", "libblis.so.4"], flags)
    assert found == [*named, Candidate("libopenblas.so.0"), Candidate("libblis.so.4")]


def test_kernels_that_the_user_has_named_are_left(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Zen")
    assert blas_choice._variants(["libopenblas.so.0"], AVX512) == [Candidate("libopenblas.so.0")]


def test_an_interpreter_that_fails_measures_nothing(tmp_path, monkeypatch):
    for program in ("", str(tmp_path / "nothing"), "/bin/false", "/bin/true"):
        monkeypatch.setattr(sys, "executable", program)
        assert blas_choice._measure([Candidate(A)]) is None


def test_processes_at_once_store_a_whole_file(tmp_path):
    code = """
import os
from mlx_aimv2.backend import blas_choice
blas_choice._measure = lambda candidates: [1.0, 3.0, 2.0]
print([x.name for x in blas_choice.fastest_first(["/a.so", "/b.so", "/c.so"])])
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "MLX_AIMV2_BLAS": "off"}
    programs = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert {program.communicate()[0] for program in programs} == {"['/b.so', '/c.so', '/a.so']\n"}
    (file,) = stored(tmp_path)
    assert json.loads(file.read_text())["rates"] == [1.0, 3.0, 2.0]


def test_of_processes_that_measure_at_once_the_first_decides_for_all(tmp_path):
    path = tmp_path / "blas" / "rates.json"
    assert blas_choice._store(path, "key", [1.0, 2.0]) == [1.0, 2.0]
    assert blas_choice._store(path, "key", [2.0, 1.0]) == [1.0, 2.0]
    assert blas_choice._store(path, "other machine", [3.0, 4.0]) == [3.0, 4.0]
    assert blas_choice._stored(path, "other machine", 2) == [3.0, 4.0]
    assert [x.name for x in path.parent.iterdir()] == ["rates.json"]


@pytest.fixture
def linker_cache(tmp_path, monkeypatch):
    """The file of the linker, read anew."""
    monkeypatch.setattr(blas_choice, "LINKER_CACHE", tmp_path / "ld.so.cache")
    blas_choice._linker_cache.cache_clear()
    yield tmp_path / "ld.so.cache"
    blas_choice._linker_cache.cache_clear()


def test_the_linkers_names_and_paths_are_installed_or_not(tmp_path, linker_cache, monkeypatch):
    linker_cache.write_bytes(b"\0libthere.so.0\0/lib/libthere.so.0\0")
    monkeypatch.setenv("LD_LIBRARY_PATH", f":{tmp_path}")
    (tmp_path / "libown.so").touch()
    names = ("libthere.so.0", "libown.so", "./any.so", "/any.so", "libthere.so", "libnothing.so")
    assert [blas_choice.is_installed(name) for name in names] == [True, True, True, True, False, False]


def test_without_a_file_of_the_linker_any_name_may_be_installed(linker_cache):
    assert blas_choice.is_installed("libnothing.so")
