"""The chart of a report."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from mlx_aimv2.benchmarking.architecture import find_architecture
from mlx_aimv2.benchmarking.chart import draw_report
from mlx_aimv2.benchmarking.decoding import Decoding
from mlx_aimv2.benchmarking.forward import Cell
from mlx_aimv2.benchmarking.machine import describe_machine
from mlx_aimv2.benchmarking.options import Setting
from mlx_aimv2.benchmarking.report import Report
from mlx_aimv2.benchmarking.timing import Timing

CELLS = [
    Cell(Setting("float16", bits, size), Timing((size / 100,)), 10**9, 10**8)
    for bits in (None, 8, 4)
    for size in (1, 8, 32)
]


@pytest.mark.charts
@pytest.mark.parametrize(
    "cells", [CELLS, CELLS[:1], [Cell(Setting("float16", None, 1), error="out of memory")]],
    ids=["lines", "point", "nothing"],
)  # fmt: skip
def test_a_chart_is_a_png_of_two_panels(cells):
    report = Report(describe_machine(), find_architecture("lit"), (224, 224), "a photo", cells)
    report = report.with_result(Decoding("fast", 90.0, 40, 2)).with_result(Decoding("exact", 900.0, 10, 2))
    with Image.open(io.BytesIO(draw_report(report))) as image:
        assert image.format == "PNG"
        assert image.size == (1350, 630)
