"""Images in Parquet tables: columns, ids, order, damage, memory."""

from __future__ import annotations

import io
import os
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.found_images import values
from PIL import Image

from mlx_aimv2.errors import InputError, MissingExtraError
from mlx_aimv2.processing.decode import decode_image
from mlx_aimv2.sources import parquet
from mlx_aimv2.sources.find import Found, find_sources
from mlx_aimv2.sources.options import SourceOptions
from mlx_aimv2.vectors import files as vector_files

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

HF_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value, value, value)).save(file, "png")
    return file.getvalue()


def write(
    path: Path, columns: dict[str, Sequence[Any]], kinds: dict[str, Any] | None = None, **options: Any
) -> Path:
    kinds = kinds or {}
    arrays = {name: pa.array(values, kinds.get(name)) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), path, **options)
    return path


def find(*paths: Path, **options: Any) -> Found:
    return find_sources([str(path) for path in paths], options=SourceOptions(**options))


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary()), HF_IMAGE]
)
def test_columns_of_bytes_are_found(tmp_path: Path, kind: Any) -> None:
    images: list[Any] = [png(n) for n in range(40)]
    if kind == HF_IMAGE:
        images = [{"bytes": image, "path": f"{n}.png"} for n, image in enumerate(images)]
    columns = {"label": range(40), "image": images, "hash": [b"0123456789abcdef"] * 40}
    path = write(tmp_path / "t.parquet", columns, {"image": kind}, row_group_size=7)
    found = find(path)
    assert values(found) == {f"t.parquet#{n}": n for n in range(40)}
    assert set(found.files) == {str(path)}


def test_images_can_be_read_in_any_order(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"image": [png(n) for n in range(200)]}, row_group_size=50)
    images = find(path).images
    order = np.random.default_rng(0).permutation(200)
    assert [int(np.asarray(decode_image(images[n]))[0, 0, 0]) for n in order] == order.tolist()


def test_row_groups_before_the_first_wanted_image_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "t.parquet", {"image": [png(n) for n in range(200)]}, row_group_size=50)
    images = find(path).images
    groups: list[Any] = []
    read = parquet._File.values
    monkeypatch.setattr(parquet._File, "values", lambda *args: groups.append(args[2]) or read(*args))
    for number in (5, 160, 161):
        decode_image(images[number])
    assert groups == [[0], [3]]


def test_nested_columns(tmp_path: Path) -> None:
    kind = pa.struct([("picture", HF_IMAGE), ("label", pa.int64())])
    rows: list[Any] = [{"picture": {"bytes": png(n), "path": None}, "label": n} for n in range(3)]
    path = write(
        tmp_path / "t.parquet", {"sample": [*rows, None, {"picture": None, "label": 4}]}, {"sample": kind}
    )
    missing = "the row has no image"
    expected = {f"t.parquet#{n}": n if n < 3 else missing for n in range(5)}
    for column in (None, "sample.picture", "sample.picture.bytes"):
        assert values(find(path, image_column=column)) == expected


def test_a_column_whose_name_has_a_dot(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"key": ["a"], "image.png": [png(3)]})
    assert values(find(path)) == {"t.parquet#0": 3}
    assert values(find(path, image_column="image.png")) == {"t.parquet#0": 3}


def test_a_row_may_name_a_file_in_the_folder_of_the_table(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "1.png").write_bytes(png(1))
    (tmp_path / "secret.png").write_bytes(png(9))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    names = ["sub/1.png", "../secret.png", str(tmp_path / "secret.png"), "link.png", "gone.png", "", None]
    rows = [{"bytes": None, "path": name} for name in names]
    path = write(folder / "t.parquet", {"image": rows}, {"image": HF_IMAGE})
    outside = "the row has no bytes, and its file {} is outside the table's folder"
    assert list(values(find(path)).values()) == [
        1,
        *(outside.format(name) for name in names[1:4]),
        "the row has no bytes, and its file gone.png is not in the table's folder",
        "the row has no image",
        "the row has no image",
    ]


def test_missing_and_broken_images_fail_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"image": [None, png(1), b"", b"no image", png(4)]})
    assert values(find(path)) == {
        "t.parquet#0": "the row has no image",
        "t.parquet#1": 1,
        "t.parquet#2": "empty, 0 bytes",
        "t.parquet#3": "not an image that can be read",
        "t.parquet#4": 4,
    }


def test_several_columns_of_images_need_a_choice(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"image": [png(1)], "mask": [png(2)]})
    with pytest.raises(
        InputError,
        match=r"t\.parquet has several columns of images \(image, mask\): choose one with image_column",
    ):
        find(path)
    assert values(find(path, image_column="mask")) == {"t.parquet#0": 2}


def test_a_chosen_column_that_holds_no_images_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"image": [png(1)], "label": [7]})
    with pytest.raises(InputError, match=r"in the table .*t\.parquet: no column picture, but image, label"):
        find(path, image_column="picture")
    with pytest.raises(InputError, match=r"t\.parquet: its column label holds int64, no images"):
        find(path, image_column="label")


def test_ids_from_a_column(tmp_path: Path) -> None:
    first = write(tmp_path / "a.parquet", {"image": [png(1), png(2)], "name": ["x", "y/z.png"]})
    second = write(tmp_path / "b.parquet", {"image": [png(3)], "name": [12]})
    assert find(first, second, id_column="name").names == ["x", "y/z.png", "12"]
    with pytest.raises(
        InputError, match=r"the id x is in .*a\.parquet and in .*c\.parquet: choose another id_column"
    ):
        find(first, write(tmp_path / "c.parquet", {"image": [png(4)], "name": ["x"]}), id_column="name")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", None], "row 1: no id in the column id: leave out id_column"),
        (["a", ""], "row 1: no id in the column id: leave out id_column"),
        (["a", "a"], "row 1: row 0 has the id a too: choose another id_column, or leave it out"),
        ([0.5, 1.5], "row 0: an id is a text or a whole number, but id holds float"),
        ([True, False], "row 0: an id is a text or a whole number, but id holds bool"),
    ],
)
def test_ids_that_identify_nothing_are_refused(tmp_path: Path, ids: list[Any], message: str) -> None:
    path = write(tmp_path / "t.parquet", {"image": [png(1), png(2)], "id": ids})
    with pytest.raises(InputError) as caught:
        find(path, id_column="id")
    assert str(caught.value) == f"{path}, {message}"


def test_a_missing_column_of_ids_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"image": [png(1)]})
    with pytest.raises(InputError, match=r"t\.parquet has no column key for the ids, but image"):
        find(path, id_column="key")


def test_tables_in_folders(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": [png(1)]})
    write(tmp_path / "labels.parquet", {"path": ["x.jpg"], "label": ["cat"], "hash": [b"0123456789abcdef"]})
    write(tmp_path / "rows.parquet", {"image": []}, {"image": pa.binary()})
    vector_files.write(tmp_path / "vectors.parquet", ["x.jpg"], np.ones((1, 3), np.float32), {"model": "m"})
    found = find(tmp_path)
    assert values(found) == {"a.parquet#0": 1}
    assert found.notices() == [
        "left out 3 files: 1 .parquet (table, no column of images), 1 .parquet (table, no rows),"
        " 1 written by mlx-aimv2"
    ]


def test_vectors_of_this_program_are_no_images(tmp_path: Path) -> None:
    path = tmp_path / "vectors.parquet"
    vector_files.write(path, ["x.jpg"], np.ones((1, 3), np.float32), {"model": "m"})
    with pytest.raises(InputError, match=r"no images in the table .*vectors\.parquet: written by mlx-aimv2"):
        find(path)


def test_images_that_a_library_fails_at_are_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[bytes] = []

    def identify(stream: io.BytesIO) -> None:
        opened.append(stream.read())
        raise RuntimeError("of a library")

    monkeypatch.setattr(parquet, "identify", identify)
    assert values(find(write(tmp_path / "a.parquet", {"image": [png(1)]}))) == {"a.parquet#0": 1}
    assert opened == [png(1)]
    large = b"\xff\x0a" + (0b110 | 0xFFFFFFF << 3).to_bytes(20, "little")  # JPEG XL of 2**28 rows
    found = values(find(write(tmp_path / "b.parquet", {"image": [large]})))
    assert "megapixels, more than the 200 allowed" in str(found["b.parquet#0"])
    assert opened == [png(1)], "the plugin for JPEG XL would decode the pixels"


def cut(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "not a Parquet table, or damaged"),
        (lambda data: data[:-1], "not a Parquet table, or damaged"),
        (lambda data: data[: len(data) // 2], "not a Parquet table, or damaged"),
        (lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1", "not a Parquet table, or damaged"),
        (lambda data: data[:-60] + b"\xff" * 52 + data[-8:], "not a Parquet table, or damaged"),
        (
            lambda data: b"version https://git-lfs.github.com/spec/v1",
            "not a Parquet table, but a Git LFS pointer",
        ),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    path = cut(write(tmp_path / "t.parquet", {"image": [png(n) for n in range(9)]}), change)
    ((name, problem),) = values(find(path)).items()
    assert name == "t.parquet"
    assert str(problem).startswith(message)


@pytest.mark.parametrize("group", [0, 1])
def test_a_damaged_row_group_loses_only_its_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    columns = {"image": [png(n) for n in range(60)]}
    path = write(tmp_path / "t.parquet", columns, row_group_size=20, compression="none")
    chunk = pq.ParquetFile(path).metadata.row_group(group).column(0)
    start = chunk.dictionary_page_offset
    cut(path, lambda data: data[:start] + b"\xff" * 400 + data[start + 400 :])
    opened: list[str] = []
    open_table = parquet._opened
    monkeypatch.setattr(parquet, "_opened", lambda name: opened.append(name) or open_table(name))
    found = values(find(path))
    lost = range(20 * group, 20 * group + 20)
    for number in range(60):
        result = found[f"t.parquet#{number}"]
        assert str(result).startswith("the table is damaged here (") if number in lost else result == number
    assert len(opened) <= 4  # not once for each lost image


def test_more_rows_than_a_file_can_hold_are_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "ROWS_FREE", 10)
    path = write(tmp_path / "t.parquet", {"image": [None] * 100_000}, {"image": pa.binary()})
    (problem,) = values(find(path)).values()
    assert problem == f"damaged: {path.stat().st_size:,} bytes cannot hold 100,000 rows"


def test_a_table_that_changes_after_it_was_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"image": [png(1)]})
    found = find(path)
    write(path, {"image": [png(2), png(3)]})
    assert values(found) == {
        "t.parquet#0": "the table has changed since its images were listed: run this again"
    }


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "t\udcff\n.parquet"
    try:
        write(tmp_path / "t.parquet", {"image": [png(1)]}).rename(path)
    except OSError:
        pytest.skip("the file system wants UTF-8")
    assert values(find(path)) == {f"{path.name}#0": 1}


def test_missing_tables_and_pipes_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.parquet")
    gone = tmp_path / "gone.parquet"
    assert values(find(gone, tmp_path / "pipe.parquet")) == {
        "gone.parquet": f"{gone}: cannot be read: No such file or directory",
        "pipe.parquet": "not a regular file",
    }


def test_pyarrow_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.parquet", {"image": [png(1)]})
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    (image,) = find(path).images
    with pytest.raises(
        MissingExtraError, match=r"needs the package pyarrow: pip install 'mlx-aimv2\[parquet\]'"
    ):
        decode_image(image)


def test_memory_is_bounded_by_a_page_not_by_a_row_group(tmp_path: Path) -> None:
    noise, path = np.random.default_rng(0), tmp_path / "t.parquet"
    image = png(1)
    schema = pa.schema([("image", pa.binary())])
    with pq.ParquetWriter(
        path, schema, compression="none", use_dictionary=False, write_batch_size=8, data_page_size=2**18
    ) as writer:
        rows = [image + noise.bytes(50_000) for _ in range(1000)]
        writer.write_table(pa.table({"image": rows}, schema=schema), row_group_size=1000)
    del rows
    pool = pa.default_memory_pool()
    before, most = pool.bytes_allocated(), 0
    tracemalloc.start()  # of what is read from the file, which the pool does not count
    for each in find(path).images:
        decode_image(each)
        most = max(most, pool.bytes_allocated() - before)
    read = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 50_000_000
    assert most < 5_000_000
    assert read < 10_000_000
