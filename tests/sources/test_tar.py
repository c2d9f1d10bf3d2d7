"""Images in tar archives: ids, order, links, damage, bombs."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.found_images import values
from PIL import Image

from mlx_aimv2.errors import InputError
from mlx_aimv2.processing.decode import decode_image
from mlx_aimv2.sources import tar
from mlx_aimv2.sources.find import find_sources


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value, value, value)).save(file, "png")
    return file.getvalue()


def member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def write(path: Path, *members: tuple[tarfile.TarInfo | str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, data in members:
            info = member(info) if isinstance(info, str) else info
            if info.isreg():
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"])
def test_images_come_in_the_order_of_the_archive(tmp_path: Path, suffix: str) -> None:
    mode = {".tar": "w", ".tgz": "w:gz"}.get(suffix, f"w:{suffix[5:]}")
    path = write(
        tmp_path / f"shard{suffix}",
        *(
            (f"{n:03}.{kind}", png(n) if kind == "png" else b"{}")
            for n in range(40, 0, -1)
            for kind in ("png", "json")
        ),
        mode=mode,
    )
    found = find_sources([str(path)])
    assert found.names[:2] == [f"{path}/040.png", f"{path}/039.png"]
    assert values(found) == {f"{n:03}.png": n for n in range(1, 41)}
    assert found.notices() == ["left out 40 files: 40 other (.json)"]
    assert set(found.files) == {str(path)}


def test_a_compressed_archive_can_be_read_in_any_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tgz", *((f"{n}.png", png(n)) for n in range(100)), mode="w:gz")
    images = find_sources([str(path)]).images
    order = np.random.default_rng(0).permutation(100)
    assert [int(np.asarray(decode_image(images[n]))[0, 0, 0]) for n in order] == order.tolist()


def test_archives_in_folders_and_patterns(tmp_path: Path) -> None:
    write(tmp_path / "b.tar", ("1.png", png(1)))
    write(tmp_path / "empty.tar", ("1.txt", b""))
    (tmp_path / "a.png").write_bytes(png(7))
    (tmp_path / "c.png").write_bytes(png(8))
    found = find_sources([str(tmp_path)])
    assert [Path(name).name for name in found.names] == ["a.png", "1.png", "c.png"]
    assert found.notices() == ["left out 2 files: 1 .tar (archive, no images), 1 other (.txt)"]
    assert [Path(name).name for name in find_sources([str(tmp_path / "*.tar")]).names] == ["1.png"]


def test_an_archive_without_images_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", ("1.txt", b""), ("2.txt", b""))
    with pytest.raises(
        InputError, match=r"no images in the archive .*a\.tar: it holds 2 files: 2 other \(\.txt\)"
    ):
        find_sources([str(path)])


def test_links_lead_to_other_members(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tar",
        ("x/1.png", png(1)),
        (member("x/hard.png", type=tarfile.LNKTYPE, linkname="x/1.png"), b""),
        (member("x/soft.png", type=tarfile.SYMTYPE, linkname="../x/hard.png"), b""),
        (member("x/out.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""),
        (member("x/loop.png", type=tarfile.SYMTYPE, linkname="loop.png"), b""),
    )
    assert values(find_sources([str(path)])) == {
        "1.png": 1,
        "hard.png": 1,
        "soft.png": 1,
        "out.png": "a link to /etc/passwd, which is no file of the archive",
        "loop.png": "a link to x/loop.png, which is no file of the archive",
    }


def test_names_are_only_names(tmp_path: Path) -> None:
    names = [
        "/etc/passwd.png",
        "../../up.png",
        "with\nnewline.png",
        "not-utf8-\udcff.png",
        "twice.png",
        "twice.png",
    ]
    path = write(tmp_path / "a.tar", *((name, png(n)) for n, name in enumerate(names)))
    found = find_sources([str(path)])
    assert found.names == [f"{path}/{name}" for name in names[:-1]] + [f"{path}/twice.png#2"]
    assert list(values(found).values()) == list(range(6))
    assert not list(tmp_path.glob("**/up.png"))


def test_hidden_excluded_and_special_members_are_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tar",
        ("1.png", png(1)),
        ("._1.png", b""),
        ("__MACOSX/1.png", b""),
        ("raw/1.png", b""),
        (member("pipe.png", type=tarfile.FIFOTYPE), b""),
        (member("folder.png", type=tarfile.DIRTYPE), b""),
    )
    found = find_sources([str(path)], exclude=["raw"])
    assert [Path(name).name for name in found.names] == ["1.png"]
    assert found.notices() == ["left out 4 files: 1 excluded, 1 hidden, 1 special file, 1 system"]


def cut(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


def test_what_cannot_be_read_of_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", *((f"{n}.png", png(n)) for n in range(4)))
    with tarfile.open(path) as archive:
        offsets = [info.offset for info in archive]
    damaged = cut(path, lambda data: data[: offsets[2]] + b"\xff" * 512 + data[offsets[2] + 512 :])
    problem = f"the rest of the archive cannot be read: it is damaged at byte {offsets[2]:,}"
    assert values(find_sources([str(damaged)])) == {"0.png": 0, "1.png": 1, "a.tar": problem}


def test_an_archive_that_is_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", *((f"{n}.png", png(n)) for n in range(4)))
    with tarfile.open(path) as archive:
        last = list(archive)[2]
    found = values(find_sources([str(cut(path, lambda data: data[: last.offset_data + 20]))]))
    assert found == {
        "0.png": 0,
        "1.png": 1,
        "2.png": "cut off: the archive ends within it",
        "a.tar": "the rest of the archive cannot be read: unexpected end of data",
    }


def test_a_compressed_archive_that_is_cut_off(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    path = write(
        tmp_path / "a.tgz", *((f"{n}.png", png(n) + noise.bytes(9000)) for n in range(9)), mode="w:gz"
    )
    found = values(find_sources([str(cut(path, lambda data: data[: len(data) // 2]))]))
    assert found["0.png"] == 0
    assert list(found)[-1] == "a.tgz"
    assert str(found["a.tgz"]).startswith("the rest of the archive cannot be read: ")
    assert len(found) < 9


def test_a_second_archive_behind_the_end_is_named(tmp_path: Path) -> None:
    one, two = (write(tmp_path / f"{n}.tar", (f"{n}.png", png(n))) for n in (1, 2))
    one.write_bytes(one.read_bytes() + two.read_bytes())
    found = values(find_sources([str(one)]))
    assert found["1.png"] == 1
    assert "another archive follows its end" in str(found["1.tar"])


@pytest.mark.parametrize("content", [b"", b"no archive at all", png(1)])
def test_what_is_no_archive_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    assert values(find_sources([str(path)])) == {"a.tar": "not a tar archive, or damaged"}


def test_a_named_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    assert values(find_sources([str(tmp_path / "a.tar")])) == {"a.tar": "not a regular file"}


def test_missing_and_unreadable_archives_are_named(tmp_path: Path) -> None:
    path = tmp_path / "gone.tar"
    assert values(find_sources([str(path)])) == {
        "gone.tar": f"{path}: cannot be read: No such file or directory"
    }


def test_members_that_would_fill_the_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar, "LARGEST", 5000)
    path = write(tmp_path / "a.tar", ("1.png", png(1)), ("2.png", b"\0" * 6000))
    assert values(find_sources([str(path)])) == {"1.png": 1, "2.png": "6,000 bytes are too many for an image"}


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "EXPANSION_FREE", 10_000)
    path = write(
        tmp_path / "a.tgz", ("1.png", png(1)), ("2.png", b"\0" * 3_000_000), ("3.png", png(3)), mode="w:gz"
    )
    found = values(find_sources([str(path)]))
    assert found["1.png"] == 1
    assert "it would unpack to more than" in str(found["a.tgz"])
    assert len(found) == 2


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
@pytest.mark.parametrize("place", [0, 1])
def test_a_header_that_would_fill_the_memory_is_not_read(tmp_path: Path, kind: bytes, place: int) -> None:
    header = member("x", type=kind)
    header.size = 10 * tar.LARGEST_HEADER
    path = tmp_path / "a.tgz"
    write(path, *[("1.png", png(1))] * place, mode="w:gz")
    with gzip.open(path) as file:
        before = file.read(tarfile.BLOCKSIZE * 2 * place)
    with gzip.open(path, "w", 1) as file:
        file.write(before + header.tobuf(tarfile.USTAR_FORMAT) + bytes(header.size) + bytes(1024))
    tracemalloc.start()
    found = values(find_sources([str(path)]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * tar.LARGEST_HEADER
    assert found.get("1.png") == (1 if place else None)
    problem = "a header has more than 2,097,152 bytes"
    assert found["a.tgz"] == (
        f"the rest of the archive cannot be read: {problem}" if place else "not a tar archive, or damaged"
    )


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ([(tarfile.REGTYPE, -1024)], "the header at byte 1,024 leads back"),
        ([(tarfile.XHDTYPE, -1024)], "a header has more than 2,097,152 bytes"),
        ([(tarfile.XHDTYPE, 0)] * 1500, "a member has too many headers"),
    ],
    ids=["backwards", "negative", "many"],
)
def test_headers_that_never_end(tmp_path: Path, headers: list[tuple[bytes, int]], problem: str) -> None:
    path = write(tmp_path / "a.tar", ("1.png", png(1)))
    with path.open("r+b") as file:
        file.seek(2 * tarfile.BLOCKSIZE)
        for kind, size in headers:
            header = member("2.png", type=kind, size=size)
            file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(1024))
    found = values(find_sources([str(path)]))
    assert found.pop("1.png") == 1
    # newer versions of Python refuse negative sizes
    assert found.pop("a.tar") in [
        f"the rest of the archive cannot be read: {each}" for each in (problem, "it is damaged at byte 1,024")
    ]
    assert not found


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz"])
def test_damage_within_a_compressed_archive_is_named(tmp_path: Path, packing: str) -> None:
    noise = np.random.default_rng(0)
    contents = [png(n) + noise.bytes(3000) for n in range(9)]
    files = [(f"{n}.png", content) for n, content in enumerate(contents)]
    whole = write(tmp_path / "whole", *files, mode=f"w:{packing}").read_bytes()
    for at in range(0, len(whole), len(whole) // 16):
        path = tmp_path / f"a.tar.{packing}"
        path.write_bytes(whole[:at] + b"\xa5\x5a\0\xff" * 8 + whole[at + 32 :])
        found = values(find_sources([str(path)]))
        assert len(found) == 9 or path.name in found, "what is missing is accounted for"


@pytest.mark.parametrize("name", ["a.tar", "a.tgz"])
def test_an_archive_that_changes_after_it_was_listed(tmp_path: Path, name: str) -> None:
    mode = "w:gz" if name == "a.tgz" else "w"
    path = write(tmp_path / name, ("1.png", png(1)), mode=mode)
    found = find_sources([str(path)])
    write(path, ("longer-name.png", png(2)), ("1.png", png(3)), mode=mode)
    changed = "the archive has changed since its images were listed: run this again"
    assert values(found) == {"1.png": changed}


@pytest.mark.parametrize("size", [2**60, 2**70])
def test_a_member_larger_than_any_file(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "a.tar", ("1.png", png(1)))
    with tarfile.open(path) as archive:
        (first,) = archive
    header = member("2.png", size=size).tobuf(tarfile.GNU_FORMAT)
    cut(path, lambda data: data[: first.offset_data + tarfile.BLOCKSIZE] + header)
    assert values(find_sources([str(path)])) == {
        "1.png": 1,
        "2.png": f"{size:,} bytes are too many for an image",
        "a.tar": "the rest of the archive cannot be read: unexpected end of data",
    }


def test_names_behind_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", ("1.png", png(1)))
    name = member("", type=tarfile.GNUTYPE_LONGNAME, size=1).tobuf(tarfile.GNU_FORMAT) + bytes(512)
    cut(path, lambda data: data[: tarfile.BLOCKSIZE * 2] + name * 2500 + data)
    found = values(find_sources([str(path)]))
    assert found.keys() == {"1.png", "a.tar"} and found["1.png"] == 1
    assert str(found["a.tar"]).startswith("the rest of the archive cannot be read: a ")


def test_what_a_library_raises_unexpectedly_is_the_failure_of_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("division by\nzero")

    monkeypatch.setattr(tar, "list_images", fail)
    path = write(tmp_path / "a.tar", ("1.png", png(1)))
    (tmp_path / "b.png").write_bytes(png(2))
    assert values(find_sources([str(tmp_path)])) == {
        "a.tar": "damaged (ZeroDivisionError: division by zero)",
        "b.png": 2,
    }
    assert values(find_sources([str(path)])).keys() == {"a.tar"}


def test_a_sparse_member_is_named(tmp_path: Path) -> None:
    info = member("s.png", type=tarfile.GNUTYPE_SPARSE)
    path = write(tmp_path / "a.tar", ("1.png", png(1)), (info, b""))
    found = values(find_sources([str(path)]))
    assert found["1.png"] == 1
    assert "sparse" in str(found.get("s.png", found.get("a.tar")))
