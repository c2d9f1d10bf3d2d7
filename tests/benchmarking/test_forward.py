"""Speed and memory of the model: what is measured, left out, and survived."""

from __future__ import annotations

import json

import mlx.core as mx
import pytest

from mlx_aimv2.benchmarking import forward
from mlx_aimv2.benchmarking.architecture import Architecture, find_architecture
from mlx_aimv2.benchmarking.forward import Bounds, Cell, measure_settings
from mlx_aimv2.benchmarking.options import BenchOptions, Setting
from mlx_aimv2.benchmarking.timing import Timing

ONE = Setting("float32", None, 1)


@pytest.fixture
def small(checkpoint):
    return find_architecture(str(checkpoint("lit")))


@pytest.fixture(autouse=True)
def few_runs(monkeypatch):
    monkeypatch.setattr(forward, "MOST_RUNS", 2)


def cells(architecture, bounds=None, **options):
    settings = BenchOptions(**options).settings(on_cpu=True)
    return list(measure_settings(architecture, settings, (56, 56), bounds or Bounds(60)))


def measured(batch_size, seconds, peak_bytes=1000, weight_bytes=400):
    return Cell(Setting("float32", None, batch_size), Timing((seconds,)), peak_bytes, weight_bytes)


def test_every_setting_has_a_cell(small):
    results = cells(
        small,
        dtypes=("float32,bfloat16",),
        bits=("none,4",),
        batch_sizes=("1,3",),
    )
    assert [str(cell.setting) for cell in results] == [
        f"{weights}, batch {size}"
        for weights in ("float32", "float32, 4-bit", "bfloat16", "bfloat16, 4-bit")
        for size in (1, 3)
    ]
    for cell in results:
        assert (cell.left_out, cell.error) == (None, None)
        assert len(cell.timing.seconds) == 2
        assert cell.images_per_second == cell.setting.batch_size / cell.timing.median
        assert cell.peak_bytes > cell.weight_bytes > 0
    assert json.loads(json.dumps([cell.to_dict() for cell in results]))[1]["batch_size"] == 3


def test_packed_weights_take_less_memory(small):
    plain, packed = cells(small, bits=("none,4",), batch_sizes=("1",))
    assert plain.weight_bytes > packed.weight_bytes


def test_the_peak_of_memory_is_that_of_a_setting_alone(small):
    _, large, single, _ = cells(small, bits=("none,4",), batch_sizes=("1,16",))
    assert single.peak_bytes < large.peak_bytes


def test_a_vision_encoder_without_text_is_measured(checkpoint):
    (cell,) = cells(find_architecture(str(checkpoint("native"))), batch_sizes=("2",))
    assert cell.images_per_second > 0


def test_a_batch_that_would_take_too_long_is_left_out():
    bounds = Bounds(seconds=1)
    slow = measured(2, 1.0)
    assert bounds.too_much(Setting("float32", None, 4), slow) is None
    assert bounds.too_much(Setting("float32", None, 8), slow) == "about 12.0 s"
    assert bounds.too_much(ONE, None) is None


def test_a_large_first_batch_is_judged_by_one_image(small, monkeypatch):
    monkeypatch.setattr(forward, "pool", lambda model, pixels, pooling: mx.ones((len(pixels), 8)))
    monkeypatch.setattr(forward, "measure", lambda run, *limits: run() or Timing((1.0,)))
    (cell,) = cells(small, Bounds(1), batch_sizes=("512",))
    assert cell.left_out == "about 25 min 36 s" and cell.timing is None


def test_a_batch_without_room_is_left_out():
    bounds = Bounds(seconds=1, memory_bytes=5000)
    assert bounds.too_much(Setting("float32", None, 6), measured(1, 0.1)) is None  # 400 + 6 x 600 bytes
    assert bounds.too_much(Setting("float32", None, 8), measured(1, 0.1)) == "needs about 5 kB of 5 kB"


def test_a_fifth_of_the_memory_is_left_to_others():
    assert Bounds(1, memory_bytes=1000).no_room(800) is None
    assert Bounds(1, memory_bytes=1000).no_room(801)


def test_a_batch_after_one_that_failed_is_left_out():
    assert Bounds(1).too_much(Setting("float32", None, 2), Cell(ONE, error="x")) == "batch 1 failed: x"


def test_weights_without_room_are_not_made(small, monkeypatch):
    monkeypatch.setattr(Architecture, "random_model", lambda *_: pytest.fail("made a model"))
    dtypes = ("float32,bfloat16",)
    results = cells(small, Bounds(1, memory_bytes=1000), dtypes=dtypes, batch_sizes=("1,2",))
    needs = ["needs about 981 kB of 1 kB"] * 2 + ["needs about 491 kB of 1 kB"] * 2
    assert [cell.left_out for cell in results] == needs


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("[metal::malloc] Attempting to allocate 9 bytes"), "out of memory"),
        (RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory"), "out of memory"),
        (MemoryError(), "out of memory"),
        (RuntimeError("[cuda]\n no such kernel"), "[cuda] no such kernel"),
        (RuntimeError(), "RuntimeError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failure_is_a_cell_and_not_the_end(small, monkeypatch, error, reason):
    def fail(model, pixels, pooling):
        if pixels.shape[0] == 2:
            raise error
        return mx.ones((pixels.shape[0], 8))

    monkeypatch.setattr(forward, "pool", fail)
    first, second, third, *others = cells(small, bits=("none,4",), batch_sizes=("1,2,4",))
    assert first.timing and second.error == reason and third.left_out == f"batch 2 failed: {reason}"
    assert second.images_per_second is None and second.to_dict()["seconds"] is None
    assert others[0].timing  # the next weights


def test_weights_that_cannot_be_made_are_a_failure(small, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(Architecture, "random_model", fail)
    assert [cell.error for cell in cells(small, batch_sizes=("1,2",))] == ["out of memory"] * 2
