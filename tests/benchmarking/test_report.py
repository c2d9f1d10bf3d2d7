"""What follows from measurements."""

from __future__ import annotations

import dataclasses
import json

import pytest

from mlx_aimv2.benchmarking.architecture import find_architecture
from mlx_aimv2.benchmarking.decoding import Decoding
from mlx_aimv2.benchmarking.forward import Cell
from mlx_aimv2.benchmarking.machine import Machine
from mlx_aimv2.benchmarking.options import Setting
from mlx_aimv2.benchmarking.report import Report
from mlx_aimv2.benchmarking.timing import Timing

MACHINE = Machine(
    "1.0", "2.0", "3.0", "4.0", "3.12.0", "Linux-6", "Some Linux 12", "Some CPU", 2, 16 << 30, None, None,
    "cpu", "/lib/libblas.so", "float32", {},
)  # fmt: skip
GPU = dataclasses.replace(MACHINE, gpu="Some GPU", device="gpu")


def cell(batch_size, seconds, dtype="float32", bits=None):
    return Cell(Setting(dtype, bits, batch_size), Timing((seconds,)), 2000, 1000)


@pytest.fixture
def empty():
    return Report(MACHINE, find_architecture("lit"), (224, 224), "a photo")


@pytest.fixture
def full(empty):
    report = empty
    for result in (
        cell(1, 0.25),
        cell(4, 0.5),
        Cell(Setting("float32", None, 8), left_out="too long"),
        cell(1, 0.2, bits=4),
        Decoding("fast", 80.0, 40, 2),
        Decoding("exact", 4.0, 10, 2),
    ):
        report = report.with_result(result)
    return report


def test_the_best_setting_and_its_single_images(full):
    assert str(full.best.setting) == "float32, batch 4"
    assert full.single.timing.median == 0.25
    assert full.tokens == 256


def test_a_single_image_of_other_weights_is_better_than_none(empty):
    report = empty.with_result(cell(4, 0.1)).with_result(cell(1, 0.2, bits=4))
    assert (report.best.setting.batch_size, report.single.setting.bits) == (4, 4)


def test_decoding_shares_a_cpu_and_not_a_gpu(full):
    fast, exact = full.decodings
    assert full.end_to_end(fast) == pytest.approx(80 / 11)
    on_gpu = dataclasses.replace(full, machine=GPU)
    assert (on_gpu.end_to_end(fast), on_gpu.end_to_end(exact)) == (8.0, 4.0)


def test_the_limit_is_the_slower_part(full, empty):
    assert full.limit() == "computing is the limit: decoding is 10 times as fast"
    slow = empty.with_result(cell(1, 0.01)).with_result(Decoding("fast", 40.0, 10, 2))
    assert slow.limit() == "decoding is the limit: computing is 2.5 times as fast"


def test_the_line_has_machine_and_best_results(full):
    assert full.line == (
        "Some CPU, 2 cores, 16 GB, Some Linux 12; MLX 2.0 on cpu, libblas.so; lit float32 8.00 images/s at batch 4,"
        " 250.0 ms at batch 1; decoding 80.0/s fast and 4.0/s exact; mlx-aimv2 1.0"
    )
    on_gpu = dataclasses.replace(full, machine=GPU, decodings=())
    assert on_gpu.line == (
        "Some GPU, 2 cores, 16 GB, Some Linux 12; MLX 2.0 on gpu; lit float32 8.00 images/s at batch 4,"
        " 250.0 ms at batch 1; mlx-aimv2 1.0"
    )


def test_without_measurements_nothing_follows(empty):
    report = empty.with_result(Cell(Setting("float32", None, 1), error="out of memory"))
    assert report.best is report.single is report.line is report.limit() is None
    assert report.end_to_end(Decoding("fast", 80.0, 40, 2)) is None
    assert report.to_dict()["best"] is None


def test_everything_fits_into_json(full):
    values = full.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["model"] == {
        "name": "lit", "parameters": 436_680_193, "weights": "random", "image_size": [224, 224], "tokens": 256,
    }  # fmt: skip
    assert values["best"]["images_per_second"] == 8.0
    assert [entry["mode"] for entry in values["decoding"]] == ["fast", "exact"]
