"""Splits: stratified, stable, and checked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.labelled import named, table, touched
from hypothesis import given
from hypothesis import strategies as st

from mlx_aimv2.datasets.labelled import Dataset, Example, read_dataset
from mlx_aimv2.datasets.splits import held_out
from mlx_aimv2.errors import InputError


def test_splits_are_stratified(tmp_path: Path) -> None:
    counts = {"one": 1, "two": 2, "five": 5, "ten": 10, "many": 103}
    touched(tmp_path, *(f"{name}/{k}.jpg" for name, count in counts.items() for k in range(count)))
    dataset = read_dataset(tmp_path)
    assert dict(zip(dataset.labels, dataset.counts("val"), strict=True)) == {
        "one": 0,
        "two": 1,
        "five": 1,
        "ten": 2,
        "many": 21,
    }
    assert not {x.path for x in dataset.val} & {x.path for x in dataset.train}
    assert len(dataset.val) + len(dataset.train) == sum(counts.values())


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.floats(0, 0.999, exclude_max=True),
    st.integers(0, 2**70),
)
def test_every_class_keeps_a_training_image_and_gets_a_validation_image(
    counts: list[int], fraction: float, seed: int
) -> None:
    labels = {f"{c}/{k}": (c,) for c, count in enumerate(counts) for k in range(count)}
    out = Counter(labels[path][0] for path in held_out(labels, fraction, seed))
    for c, count in enumerate(counts):
        assert out[c] < count
        assert (out[c] >= 1) == (count >= 2 and fraction > 0)
        assert abs(out[c] - fraction * count) <= 1


@given(st.lists(st.sets(st.integers(0, 4)), min_size=1, max_size=60), st.integers(0, 9))
def test_classes_of_images_with_several_labels_keep_training_images(sets: list[set[int]], seed: int) -> None:
    labels = {str(k): tuple(sorted(each)) for k, each in enumerate(sets)}
    out = held_out(labels, 0.3, seed)
    everywhere = {label for each in sets for label in each}
    assert {label for path, each in labels.items() if path not in out for label in each} == everywhere


def test_a_split_is_the_same_wherever_the_folder_is_and_whatever_order_the_disk_has(tmp_path: Path) -> None:
    names = [f"{name}/{k}.jpg" for name in ("cat", "dog") for k in range(20)]
    first = read_dataset(touched(tmp_path / "first", *names), seed=3)
    second = read_dataset(touched(tmp_path / "some" / "where" / "else", *reversed(names)), seed=3)
    assert named(first) == named(second)
    rows = [f"{tmp_path}/first/{name},{name[:3]}" for name in reversed(names)]
    third = read_dataset(table(tmp_path / "first" / "t.csv", "\n".join(["path,label", *rows])), seed=3)
    assert named(first) == named(third)
    assert named(second) != named(read_dataset(second.root, seed=4))


def test_a_split_is_the_same_on_every_machine_and_in_every_version() -> None:
    labels = {f"{name}/{k}.jpg": (name == "dog",) for name in ("cat", "dog") for k in range(5)}
    assert held_out(labels, 0.4, seed=0) == {"dog/3.jpg", "cat/1.jpg", "dog/2.jpg", "cat/3.jpg"}


def test_later_images_leave_most_of_a_split_where_it_was() -> None:
    labels: dict[str, tuple[int, ...]] = {f"{k}.jpg": (0,) for k in range(100)}
    before = held_out(labels, 0.2, seed=0)
    after = held_out(labels | {f"new{k}.jpg": (0,) for k in range(10)}, 0.2, seed=0)
    assert len(before & after) >= 15


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.0, 20, float("nan"), True, "0.2", None])
def test_fractions_that_are_none_are_refused(tmp_path: Path, fraction: Any) -> None:
    with pytest.raises(InputError, match=r"val_fraction is .*, but has to be a number from 0"):
        read_dataset(tmp_path, val_fraction=fraction)


@pytest.mark.parametrize("seed", [-1, 1.5, True, None])
def test_seeds_that_are_none_are_refused(tmp_path: Path, seed: Any) -> None:
    with pytest.raises(InputError, match=r"seed is .*, but has to be a whole number"):
        read_dataset(tmp_path, seed=seed)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(InputError, match="there is no split 'dev': choose among train, val, test"):
        Dataset((Example("a.jpg", (0,)),), labels=("a", "b"), multi_label=False).split("dev")
