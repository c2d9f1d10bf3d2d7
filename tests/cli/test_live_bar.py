"""The bar of a run in terminals of several widths."""

import pytest
from helpers.terminal import Drawn

from mlx_aimv2.cli.live_bar import LIVE
from mlx_aimv2.cli.screen import screen
from mlx_aimv2.events import Progress


@pytest.mark.parametrize(("columns", "bar"), [(40, False), (80, True), (120, True)])
def test_a_bar_keeps_its_numbers(monkeypatch, columns, bar):
    drawn = Drawn(monkeypatch, columns)
    with screen() as shown:
        shown(Progress("computing features", 12_345, 67_890))
        LIVE.bars.refresh()
        drawn.terminal.wait_for("12345/67890")
        shown(Progress("download", 1_500_000_000, 2_000_000_000, "bytes"))
        LIVE.bars.refresh()
        drawn.terminal.wait_for(r"1\.5/2\.0 GB")
    assert drawn.close() == []
    assert ("━" in drawn.terminal.raw.decode()) == bar
