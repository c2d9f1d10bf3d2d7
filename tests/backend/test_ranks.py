import json

import mlx.core as mx
import pytest

from mlx_aimv2.backend import blas
from mlx_aimv2.backend.ranks import VARIABLES, Ranks, launched, ranks_here
from mlx_aimv2.errors import BackendError


@pytest.fixture
def launch(monkeypatch, tmp_path):
    """Set the variables of a launcher; the values of those that name a file are written to one."""
    for name in ("MLX_HOSTFILE", "MLX_IBV_DEVICES", *(name for names in VARIABLES for name in names if name)):
        monkeypatch.delenv(name, raising=False)

    def set_variables(**variables):
        for name, value in variables.items():
            if not isinstance(value, str):
                value, content = tmp_path / name, value
                value.write_text(json.dumps(content))
            monkeypatch.setenv(name, str(value))
        launched.cache_clear()

    launched.cache_clear()
    yield set_variables
    launched.cache_clear()


def test_a_process_that_nothing_launched_is_alone(launch):
    assert launched() == Ranks(0, 1, 1)
    assert not launched()


def test_a_ring_has_as_many_ranks_here_as_entries_with_the_same_address(launch):
    hosts = [["10.0.0.1:1"], ["10.0.0.1:2"], ["10.0.0.2:3"]]
    launch(MLX_RANK="1", MLX_HOSTFILE=hosts)
    assert launched() == Ranks(1, 3, 2)
    launch(MLX_RANK="2", MLX_HOSTFILE=hosts)
    assert launched() == Ranks(2, 3, 1)


def test_a_ring_of_one_process_is_no_ring(launch, tmp_path):
    (tmp_path / "empty").write_text("\n")
    launch(MLX_RANK="0", MLX_HOSTFILE=str(tmp_path / "empty"))
    assert not launched()


@pytest.mark.parametrize(
    ("variables", "ranks"),
    [
        ({"MLX_RANK": "1", "MLX_IBV_DEVICES": [[None, "a"], ["b", None]]}, Ranks(1, 2, 1)),
        ({"MLX_RANK": "3", "MLX_WORLD_SIZE": "4"}, Ranks(3, 4, 1)),
        ({f"OMPI_COMM_WORLD_{k}": v for k, v in (("RANK", "1"), ("SIZE", "4"), ("LOCAL_SIZE", "2"))}, Ranks(1, 4, 2)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, Ranks(1, 2, 1)),
    ],
)  # fmt: skip
def test_other_launchers_have_other_variables(launch, variables, ranks):
    launch(**variables)
    assert launched() == ranks


@pytest.mark.parametrize(
    "variables",
    [
        {"MLX_RANK": "2", "MLX_HOSTFILE": [["10.0.0.1:1"], ["10.0.0.1:2"]]},
        {"MLX_RANK": "one", "MLX_WORLD_SIZE": "2"},
        {"MLX_RANK": "0", "MLX_HOSTFILE": "/nowhere/hosts"},
        {"MLX_RANK": "0", "MLX_HOSTFILE": 2},
    ],
)
def test_variables_that_make_no_sense_are_refused(launch, variables):
    launch(**variables)
    with pytest.raises(
        BackendError, match=r"the variables of mlx.launch cannot be read \(.*\): launch again"
    ):
        launched()
    assert ranks_here() == 1


def test_ranks_that_cannot_connect_say_so(monkeypatch):
    def fail(strict):
        raise RuntimeError("[ring] couldn't\nconnect")

    monkeypatch.setattr(mx.distributed, "init", fail)
    with pytest.raises(BackendError, match=r"rank 1 cannot reach the others \(\[ring\] couldn't connect\)"):
        Ranks(1, 2).gather([1])


def test_mlx_must_see_the_same_ranks():
    with pytest.raises(BackendError, match="rank 1 cannot reach the others"):
        Ranks(1, 2).gather([1])


def test_the_ranks_of_a_machine_share_the_threads_of_the_blas(launch, monkeypatch):
    for name in blas.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    launch(MLX_RANK="0", MLX_HOSTFILE=[["10.0.0.1:1"], ["10.0.0.1:2"]])
    assert blas._sharers() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert blas._sharers() == 1
