"""Measuring libraries: one that crashes, hangs, ends the process or prints counts as 0 and disturbs no other."""

import json
import shutil
import subprocess
import sys

import pytest

from mlx_aimv2.backend import blas_speed

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not shutil.which("gcc"), reason="builds libraries for Linux"
)
PRODUCT = "void cblas_sgemm(void) {%s}"
SOURCES = {
    "good": PRODUCT % "",
    "crash": PRODUCT % "*(volatile int *)0 = 1;",
    "hang": PRODUCT % "for (;;) pause();",
    "exit": PRODUCT % "exit(3);",
    "print": '__attribute__((constructor)) void start(void) {puts("[1, 2"); fflush(stdout);}' + PRODUCT % "",
    "other": "void something(void) {}",
    "load": "__attribute__((constructor)) void start(void) {abort();}",
}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("libraries")
    headers = "#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n"
    for name, source in SOURCES.items():
        (folder / f"{name}.c").write_text(headers + source)
        command = ["gcc", "-shared", "-fPIC", "-o", folder / f"{name}.so", folder / f"{name}.c"]
        subprocess.run(command, check=True)
    return folder


def test_a_broken_library_loses_only_its_own_rate(libraries):
    names = [str(libraries / f"{name}.so") for name in [*SOURCES, "missing"]]
    limited = blas_speed.__file__, "import sys; sys.argv = sys.argv[1:]"
    code = f"{limited[1]}; source = open({limited[0]!r}).read().replace('LIMIT_S = 3', 'LIMIT_S = 1'); exec(source)"
    argument = json.dumps([(name, {}) for name in names])
    done = subprocess.run(
        [sys.executable, "-c", code, "speed", argument],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    rates = dict(zip([*SOURCES, "missing"], json.loads(done.stdout), strict=True))
    assert {name for name, rate in rates.items() if rate > 0} == {"good", "print"}


def test_the_variables_reach_the_library_and_not_this_process(libraries, monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.setattr(blas_speed, "gflops", lambda name: float(blas_speed.os.environ["OPENBLAS_CORETYPE"]))
    assert blas_speed.in_child("any", {"OPENBLAS_CORETYPE": "7"}) == 7
    assert "OPENBLAS_CORETYPE" not in blas_speed.os.environ
