"""Runs over many images that are ended early."""

import re
from types import SimpleNamespace

import pytest

from mlx_aimv2.cli.jobs import run
from mlx_aimv2.cli.screen import screen
from mlx_aimv2.errors import NonFiniteError


@pytest.mark.parametrize("count", [1, 3])
def test_an_error_is_no_interruption(capsys, count):
    class Sink:
        closed = False

        def add(self, name, result):
            return

        def close(self, interrupted=False):
            self.closed = interrupted

    def results():
        if count > 1:
            yield SimpleNamespace(index=0, error=None)
        raise NonFiniteError("nonsense")

    sink = Sink()
    with pytest.raises(NonFiniteError), screen() as shown:
        run(results(), ["a", "b", "c"][:count], sink, shown, "embedded", "text")
    assert sink.closed
    said = capsys.readouterr().err
    assert re.fullmatch(
        r"mlx-aimv2: embedded 1 of 3 texts in \S+ s \(\S+/s\), ended by an error\n" if count > 1 else "", said
    )
