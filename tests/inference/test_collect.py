"""The loop over images: what is collected, skipped and raised, and what is reported."""

from __future__ import annotations

import numpy as np
import pytest

from mlx_aimv2.errors import BrokenImageError, InputError, NonFiniteError, TokenizerError
from mlx_aimv2.events import Progress, Skipped
from mlx_aimv2.inference.collect import collect, mapped, require
from mlx_aimv2.inference.stream import Embedded
from mlx_aimv2.sources.readahead import Failed

BROKEN = Failed(1, BrokenImageError("b.jpg is damaged"))
RESULTS = [Embedded(0, np.zeros(2)), BROKEN, Embedded(2, np.ones(2))]


def test_vectors_are_collected_and_broken_images_are_skipped() -> None:
    events = []
    collected = collect(RESULTS, ["a.jpg", "b.jpg", "c.jpg"], "reading", events.append)
    assert collected.indices == [0, 2] and collected.vectors.tolist() == [[0, 0], [1, 1]]
    skipped = Skipped("b.jpg", "b.jpg is damaged")
    assert collected.skipped == (skipped,)
    counts = [Progress("reading", count, 3) for count in range(4)]
    assert events == [*counts[:2], skipped, *counts[2:]]


def test_what_is_not_finite_is_an_error_with_the_name_of_the_image() -> None:
    with pytest.raises(NonFiniteError, match=r"^b\.jpg: it holds NaN$"):
        collect(
            [Failed(1, NonFiniteError("it holds NaN"))], ["a.jpg", "b.jpg"], "reading", lambda event: None
        )


def test_nothing_but_broken_images_is_an_error_with_the_first_reason() -> None:
    with pytest.raises(InputError, match="none of 2 images can be read, the first because"):
        collect([BROKEN], ["a.jpg", "b.jpg"], "reading", lambda event: None)


def test_required_results_come_before_the_first_error() -> None:
    results = require(RESULTS, "image {}".format)
    assert next(results) is RESULTS[0]
    with pytest.raises(BrokenImageError, match=r"^image 1: b\.jpg is damaged$"):
        next(results)
    with pytest.raises(BrokenImageError, match=r"^b\.jpg is damaged$"):
        list(require([BROKEN]))
    with pytest.raises(TokenizerError, match="no"):  # only errors of single items get a name
        list(require([Failed(0, TokenizerError("no"))], "text {}".format))


def test_failures_are_passed_on() -> None:
    assert list(mapped(RESULTS, lambda item: item.index)) == [0, BROKEN, 2]
