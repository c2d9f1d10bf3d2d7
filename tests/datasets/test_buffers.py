"""Buffers of mlx-data as data sets: labels, captions, ids, what is held out, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.encoded_images import encoded, noise
from PIL import Image

from mlx_aimv2.datasets.buffers import read_buffer_captions, read_buffer_labels
from mlx_aimv2.datasets.labelled import read_dataset
from mlx_aimv2.datasets.record import file_mark, item_mark
from mlx_aimv2.errors import ImageError, InputError
from mlx_aimv2.processing.decode import decode_image

dx: Any = pytest.importorskip("mlx.data", reason="mlx-data has no package for this machine")


def buffer(samples: list[dict[str, Any]]) -> Any:
    return dx.buffer_from_vector(samples)


def labelled(count: int = 10) -> list[dict[str, Any]]:
    return [{"image": noise() + number, "label": number % 2, "id": b"%d" % number} for number in range(count)]


def names(items: Any) -> list[str]:
    return [item.path for item in items]


def test_labels_are_numbers_or_names() -> None:
    dataset = read_buffer_labels(buffer(labelled()))
    assert (dataset.labels, dataset.multi_label, dataset.counts()) == (("0", "1"), False, (4, 4))
    named = [{**sample, "label": (b"dog", b"cat")[sample["label"]]} for sample in labelled()]
    assert read_buffer_labels(buffer(named)).labels == ("cat", "dog")
    several = [*labelled(), {"image": noise(), "label": np.array([0, 1]), "id": b"both"}]
    dataset = read_buffer_labels(buffer(several))
    assert dataset.multi_label
    assert {item.path: item.labels for item in dataset.images()}["both"] == (0, 1)


def test_images_are_held_out_by_id_as_those_of_a_folder_are(tmp_path: Path) -> None:
    rows = [(f"{number}.png", ("a", "b")[number % 2]) for number in range(20)]
    (tmp_path / "labels.csv").write_text(
        "path,label\n" + "".join(f"{path},{label}\n" for path, label in rows)
    )
    for path, _ in rows:
        (tmp_path / path).touch()
    table = read_dataset(tmp_path / "labels.csv", seed=3)
    samples = [{"image": noise(), "label": label.encode(), "id": path.encode()} for path, label in rows]
    for order in (samples, samples[::-1]):
        dataset = read_buffer_labels(buffer(order), seed=3)
        for split in ("train", "val"):
            assert names(dataset.split(split)) == [Path(path).name for path in names(table.split(split))]


def test_without_ids_numbers_are_the_names() -> None:
    samples = [{"image": noise(), "label": number % 2} for number in range(6)]
    first, again = (read_buffer_labels(buffer(samples)) for _ in range(2))
    assert first == again
    assert sorted(names(first.images())) == [f"sample {number}" for number in range(6)]


def test_an_image_is_known_by_its_content(tmp_path: Path) -> None:
    path, content = tmp_path / "a.png", encoded(Image.fromarray(noise()), "PNG")
    path.write_bytes(content)
    images = [noise(), noise() + 1, str(path).encode(), np.frombuffer(bytearray(content), np.uint8)]
    samples = [{"image": image, "label": k % 2, "id": k} for k, image in enumerate(images)]
    items = sorted(read_buffer_labels(buffer(samples)).images(), key=lambda item: item.path)
    marks = [item_mark(item) for item in items]
    assert len(set(marks)) == 4
    assert marks[2] == file_mark(str(path))
    changed = [{**sample, "image": noise() + 1 - k} if k < 2 else sample for k, sample in enumerate(samples)]
    items = sorted(read_buffer_labels(buffer(changed)).images(), key=lambda item: item.path)
    assert [item_mark(item) for item in items] == [marks[1], marks[0], *marks[2:]]
    np.testing.assert_array_equal(np.asarray(decode_image(items[2].image)), noise())


def test_captions() -> None:
    samples = [{"image": noise(), "caption": b"one\ntwo", "id": k} for k in range(5)]
    dataset = read_buffer_captions(buffer(samples))
    assert (len(dataset.train), len(dataset.val)) == (4, 1)
    assert dataset.val[0].captions == ("one", "two")


def test_a_sample_that_fails_is_left_out_and_named() -> None:
    samples = [*labelled(), {"label": 0, "id": b"empty"}]
    dataset = read_buffer_labels(buffer(samples))
    assert [each.reason for each in dataset.skipped] == [
        "empty: a sample needs the key image, and has id, label: rename_key gives it"
    ]
    assert len(dataset.images()) == 10


def test_an_operation_that_fails_later_is_named_by_the_id() -> None:
    calls: list[int] = []

    def flaky(image: Any) -> Any:
        calls.append(1)
        if len(calls) > 10:
            raise KeyError("boom")
        return image

    dataset = read_buffer_labels(buffer(labelled()).key_transform("image", flaky))
    with pytest.raises(ImageError, match=r"^0: 'boom'"):
        decode_image(min(dataset.images(), key=lambda item: item.path).image)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "the buffer is empty: give one with samples"),
        (
            [{"image": noise(), "id": b"x"}],
            "x has no label: a sample needs the key label, which rename_key gives",
        ),
        ([*labelled(), *labelled(1)], "two samples of the buffer have the id 0: give each its own"),
        (labelled(1), "there is only one class, '0', in the buffer: a classifier needs at least two"),
        ([{"image": noise(), "label": 0.5}], "sample 0: its label has to be a whole number"),
        ([{"label": 0}], "no sample of the buffer can be read .*: .* needs the key image"),
    ],
)
def test_what_is_refused(samples: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_buffer_labels(buffer(samples))


def test_other_objects_are_refused() -> None:
    with pytest.raises(InputError, match=r"data is a list, but has to be an mlx\.data\.Buffer"):
        read_buffer_labels(labelled())
    with pytest.raises(InputError, match="a Stream can only be embedded: give a Buffer"):
        read_buffer_labels(buffer(labelled()).to_stream())
    with pytest.raises(InputError, match=r"^0 has no caption: a sample needs the key caption"):
        read_buffer_captions(buffer(labelled()))
