"""Dividing work over several CPU streams."""

from __future__ import annotations

import threading

import mlx.core as mx
import pytest

from mlx_aimv2.backend import blas, streams


@pytest.fixture
def threads(monkeypatch):
    """The numbers of threads that the BLAS is set to, with two streams of one thread each."""
    calls = []
    monkeypatch.setattr(blas, "divide_threads", lambda: 2)
    monkeypatch.setattr(blas, "_divided_threads", lambda: (1, calls.append))
    monkeypatch.setattr(streams, "divide_threads", lambda: 2)
    mx.set_default_device(mx.cpu)
    return calls


def test_undivided_work_has_one_stream_and_all_threads_until_it_ends(threads):
    size = 4 * streams.ELEMENTS
    others = []
    with pytest.raises(ValueError, match="inside"), streams.undivided():
        assert streams.streams_for(size) == () and threads == [2]
        thread = threading.Thread(target=lambda: others.append(len(streams.streams_for(size))))
        thread.start()
        thread.join()
        raise ValueError("inside")
    assert threads == [2, 1] and others == [2]
    assert len(streams.streams_for(size)) == 2


def test_a_blas_that_is_not_divided_is_left_alone(threads, monkeypatch):
    monkeypatch.setattr(blas, "_divided_threads", lambda: None)
    with streams.undivided():
        pass
    assert threads == []
