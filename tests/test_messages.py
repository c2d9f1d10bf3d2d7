"""Durations, sizes and counts in words."""

from __future__ import annotations

import pytest

from mlx_aimv2.messages import counted, duration, size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"),
        (90000, "25 h 00 min"),
    ],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("nbytes", "words"), [(0, "0 bytes"), (999_600, "1 MB"), (618e6, "618 MB"), (1.239e9, "1.24 GB")]
)
def test_sizes_in_words(nbytes, words):
    assert size(nbytes) == words


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [(0, "text", "0 texts"), (1, "vector", "1 vector"), (2, "epoch", "2 epochs"), (3, "class", "3 classes")],
)
def test_counts_in_words(count, noun, words):
    assert counted(count, noun) == words
