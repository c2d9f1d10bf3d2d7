"""A folder of broken and strange files: each file has a vector, is named with a reason, or is counted."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import tarfile
from pathlib import Path

import pytest
from helpers.encoded_images import encoded, png, smooth

from mlx_aimv2 import InputError, read_vectors
from mlx_aimv2.cli.arguments import with_names
from mlx_aimv2.cli.output import visible
from mlx_aimv2.sources import find

FORMATS = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF"}
MANY = ("tar", "tar.gz", "parquet", "mp4")  # files of many images
REGION = re.compile(r"\[\d+(,\d+){3}\]$")


class Hostile:
    """The folder, and the names below it by what has to become of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.whole: set[str] = set()
        self.broken: set[str] = set()
        self.left_out = 0
        folder.mkdir()
        self._write_images()
        self._write_links()
        self._write_archive()

    def _write(self, name: str, data: bytes, names: set[str] | None) -> None:
        (self.folder / name).write_bytes(data)
        if names is None:
            self.left_out += 1
        else:
            names.add(name)

    def _write_images(self) -> None:
        image = encoded(smooth(), "PNG")
        for name in ("good.png", "png as.jpg", "a\nb.png", "\x1b[31m.png", "[a]*.png", "-o.png", "~x.png"):
            self._write(name, image, self.whole)
        if sys.platform != "darwin":  # whose file system takes UTF-8 only
            self._write("not UTF-8 \udcff.png", image, self.whole)
        for extension, form in FORMATS.items():
            data = encoded(smooth(), form)
            self._write(f"good.{extension}", data, self.whole)
            self._write(f"cut.{extension}", data[: len(data) // 2], self.broken)
        for extension in (*FORMATS, *MANY, "heic"):
            self._write(f"empty.{extension}", b"", self.broken)
            is_archive = extension in ("tar", "tar.gz")  # zeros are an archive without members
            self._write(f"zeros.{extension}", bytes(2048), None if is_archive else self.broken)
            self._write(f"text.{extension}", b"no\nimage " * 99, self.broken)
        self._write("broken\n\x1b.png", b"nothing", self.broken)
        self._write("bomb.png", png(60_000, 60_000), self.broken)
        self._write("thin.png", png(2**30, 1), self.broken)
        for name in ("notes.txt", "list.m3u8", ".hidden.png", "no ending"):
            self._write(name, image, None)

    def _write_links(self) -> None:
        for name, target in (("dangling.png", "nowhere.png"), ("itself.png", "itself.png")):
            (self.folder / name).symlink_to(target)
            self.broken.add(name)
        (self.folder / "endless.png").symlink_to("/dev/zero")
        os.mkfifo(self.folder / "pipe.png")
        self.left_out += 2
        (self.folder / "again").symlink_to(".")
        (self.folder / "folder.png").mkdir()

    def _write_archive(self) -> None:
        image = encoded(smooth(), "PNG")
        huge = tarfile.TarInfo("huge.png")
        huge.size = 2**70
        with tarfile.open(self.folder / "evil.tar", "w") as archive:
            for name, kind, target, data in (
                ("/absolute.png", tarfile.REGTYPE, "", image),
                ("../outside.png", tarfile.REGTYPE, "", image),
                ("cut.png", tarfile.REGTYPE, "", image[:99]),
                ("out.png", tarfile.SYMTYPE, "/etc/passwd", b""),
                ("circle.png", tarfile.SYMTYPE, "circle.png", b""),
                ("device.png", tarfile.CHRTYPE, "", b""),
            ):
                member = tarfile.TarInfo(name)
                member.type, member.linkname, member.size = kind, target, len(data)
                archive.addfile(member, io.BytesIO(data))
            assert archive.fileobj is not None
            archive.fileobj.write(huge.tobuf(tarfile.GNU_FORMAT))
        self.whole |= {"evil.tar//absolute.png", "evil.tar/../outside.png"}
        self.broken |= {f"evil.tar/{name}.png" for name in ("cut", "out", "circle", "huge")} | {"evil.tar"}
        self.left_out += 1

    def names_in(self, paths: list[str]) -> set[str]:
        """Names below the folder, without those of regions."""
        names = {REGION.sub("", path) for path in paths}
        assert all(name.startswith(f"{self.folder}/") for name in names)
        return {name.removeprefix(f"{self.folder}/") for name in names}


def failures(output: Path) -> list[str]:
    return [json.loads(line)["path"] for line in (output / "errors.jsonl").read_bytes().splitlines()]


def left_out(stderr: str) -> int:
    found = re.search(r"left out (\d+) files", stderr)
    return int(found[1]) if found else 0


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    return Hostile(tmp_path_factory.mktemp("hostile") / "folder")


def test_every_file_is_accounted_for_in_the_first_run_and_in_the_next(cli, pair, hostile, tmp_path):
    output = tmp_path / "vectors"
    given = ["embed", hostile.folder, "--fps", "1", "--model", pair, "-o", f"{output}/"]
    for run in range(2):
        done = cli(*given)
        assert done.returncode == 1
        assert not re.search("Traceback|unexpected error", done.stderr)
        assert all(line.startswith("mlx-aimv2: ") for line in done.stderr.splitlines())
        assert left_out(done.stderr) == hostile.left_out
        vectors = list(read_vectors(output).paths)
        assert len(vectors) == len(hostile.whole) and hostile.names_in(vectors) == hostile.whole
        assert len(failures(output)) == len(hostile.broken)
        assert hostile.names_in(failures(output)) == hostile.broken
        if run == 0:
            for name in hostile.broken:
                assert f"skipped {visible(f'{hostile.folder}/{name}')}: " in done.stderr
            assert (
                f"embedded {len(hostile.whole)} of {len(hostile.whole | hostile.broken)} images"
                in done.stderr
            )
        else:
            assert f"{len(hostile.whole)} of them are in {output} already" in done.stderr
    assert {path.name for path in output.iterdir()} <= {
        "manifest.json", "errors.jsonl", "embeddings-00000.safetensors", ".lock",
    }  # fmt: skip


def test_tiles_of_every_file(cli, pair, hostile, tmp_path):
    output = tmp_path / "tiles"
    done = cli("embed", hostile.folder, "--tiles", "2x2", "--fps", "1", "-m", pair, "-o", f"{output}/")
    assert done.returncode == 1
    assert not re.search("Traceback|unexpected error", done.stderr)
    vectors = list(read_vectors(output).paths)
    assert len(vectors) == 4 * len(hostile.whole) and hostile.names_in(vectors) == hostile.whole
    assert hostile.names_in(failures(output)) == hostile.broken


def test_files_that_vanish_shrink_or_grow_after_they_were_found(cli, pair, tmp_path, monkeypatch):
    folder, output, image = tmp_path / "folder", tmp_path / "vectors", encoded(smooth(), "PNG")
    folder.mkdir()
    for name in ("gone.png", "cut.png", "grown.png", "same.png"):
        (folder / name).write_bytes(image)
    with tarfile.open(folder / "shard.tar", "w") as archive:
        archive.add(folder / "same.png", "0.png")
    find_sources = find.find_sources

    def then_change(*arguments):
        found = find_sources(*arguments)
        (folder / "gone.png").unlink()
        (folder / "cut.png").write_bytes(image[: len(image) // 2])
        for name in ("grown.png", "shard.tar"):
            with (folder / name).open("ab") as file:
                file.write(bytes(512))
        return found

    given = ["embed", folder, "--model", pair, "-o", f"{output}/"]
    with monkeypatch.context() as patch:
        patch.setattr(find, "find_sources", then_change)
        done = cli(*given)
    assert done.returncode == 1
    assert {Path(path).name for path in read_vectors(output).paths} == {"grown.png", "same.png"}
    assert {Path(path).name for path in failures(output)} == {"gone.png", "cut.png", "0.png"}
    assert "the archive has changed since its images were listed: run this again" in done.stderr
    done = cli(*given)
    assert done.returncode == 1
    assert {Path(path).name for path in read_vectors(output).paths} == {"grown.png", "same.png", "0.png"}
    assert [Path(path).name for path in failures(output)] == ["cut.png"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
def test_an_image_in_place_of_a_list_is_refused(monkeypatch, form):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(encoded(smooth(), form))))
    with pytest.raises(InputError, match="- reads a list of images from stdin, and this is an image: name"):
        with_names(["-"])


def test_names_that_begin_like_an_image_are_a_list(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"BM 1.png\0P6 2.png\0GIF89a.png\0")))
    assert with_names(["-"]) == ["BM 1.png", "P6 2.png", "GIF89a.png"]
