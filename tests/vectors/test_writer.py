"""Writers of vectors: nothing that is there is lost, nothing that is done is lost."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from mlx_aimv2.errors import ExistsError, InputError, OutputError
from mlx_aimv2.events import ignore
from mlx_aimv2.storage.locks import lock_folder
from mlx_aimv2.vectors.files import WRITERS, write
from mlx_aimv2.vectors.manifest import MANIFEST
from mlx_aimv2.vectors.options import WriterOptions
from mlx_aimv2.vectors.reading import read_vectors
from mlx_aimv2.vectors.writer import check_output, check_room, open_writer

MADE_BY = {"name": "tiny", "checkpoint": "0123abcd", "pooling": "mean", "normalized": True}
OTHER = {**MADE_BY, "name": "lit", "checkpoint": "ffff"}
every_format = pytest.mark.parametrize("ending", WRITERS)
full_disk = OSError(28, "No space left on device")


@pytest.fixture
def names(tmp_path):
    """Eight files that stand for images."""
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{letter}.jpg" for letter in "abcdefgh"]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 10)
    return [str(path) for path in paths]


def vector_of(name: str) -> np.ndarray:
    return np.full(3, Path(name).read_bytes()[0], np.float32)


class Stopped(Exception):
    """A run is interrupted."""


def run(output, names, force=False, stop_after=None, made_by=MADE_BY, kill=False):
    """A run that embeds images, or ends early; what it said, and what it embedded."""
    said, options = [], WriterOptions(force=force)
    check_output(str(output), names, options)
    writer = open_writer(str(output), made_by, options, lambda event: said.append(event.message))
    left = [names[k] for k in writer.remaining(names)]
    for number, name in enumerate(left):
        if number == stop_after:
            writer._shards.settle() if kill else writer.close(interrupted=True)
            return said, left[:number]
        writer.add(name, vector_of(name))
    writer.close()
    return said, left


def values(path):
    found = read_vectors(path)
    return dict(zip((Path(name).stem for name in found.paths), found.embeddings[:, 0].tolist(), strict=True))


WHOLE = dict(zip("abcdefgh", range(8), strict=True))


@every_format
def test_a_file_holds_every_vector_in_order_and_nothing_else_is_left(tmp_path, names, ending):
    said, _ = run(tmp_path / f"v{ending}", names)
    assert list(values(tmp_path / f"v{ending}").items()) == list(WHOLE.items())
    assert said == [f"wrote 8 vectors to {tmp_path / f'v{ending}'}"]
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob(".*"))


def test_item_k_of_a_list_is_row_k_also_where_a_file_is_named_twice(tmp_path, names):
    listed = [names[2], names[0], names[2], names[1]]
    run(tmp_path / "v.npz", listed)
    found = read_vectors(tmp_path / "v.npz")
    assert found.paths == tuple(listed) and found.embeddings[:, 0].tolist() == [2, 0, 2, 1]


@every_format
def test_what_exists_is_refused_and_replaced_when_asked(tmp_path, names, ending):
    run(tmp_path / f"v{ending}", names)
    with pytest.raises(
        ExistsError, match=rf"v\{ending} exists already: name another, or replace it with force=True"
    ):
        run(tmp_path / f"v{ending}", names[:2])
    assert values(tmp_path / f"v{ending}") == WHOLE
    run(tmp_path / f"v{ending}", names[:2], force=True)
    assert values(tmp_path / f"v{ending}") == {"a": 0, "b": 1}


def test_a_file_through_a_link_is_replaced_and_the_link_stays(tmp_path, names):
    (tmp_path / "disk").mkdir()
    run(tmp_path / "disk" / "real.npz", names[:1])
    (tmp_path / "v.npz").symlink_to("disk/real.npz")
    with pytest.raises(ExistsError, match="exists already"):
        run(tmp_path / "v.npz", names)
    run(tmp_path / "v.npz", names, force=True)
    assert (tmp_path / "v.npz").is_symlink() and values(tmp_path / "disk" / "real.npz") == WHOLE


@every_format
def test_an_interrupted_run_keeps_what_it_did(tmp_path, names, ending):
    said, _ = run(tmp_path / f"v{ending}", names, stop_after=3)
    assert values(tmp_path / f"v{ending}") == {"a": 0, "b": 1, "c": 2}
    assert said == [f"wrote 3 vectors to {tmp_path / f'v{ending}'}"]


@every_format
def test_an_interrupted_run_never_replaces_a_longer_result(tmp_path, names, ending):
    path = tmp_path / f"v{ending}"
    run(path, names)
    said, _ = run(path, names, force=True, stop_after=3)
    assert values(path) == WHOLE and values(f"{path}.part") == {"a": 0, "b": 1, "c": 2}
    part = f"{path}.part"
    assert said == [
        f"{path} is left as it was; the 3 vectors of this run are in {part}: the same command goes on with them"
    ]
    said, embedded = run(path, names, force=True)
    assert [Path(name).stem for name in embedded] == list("defgh")
    assert values(path) == WHOLE and not Path(part).exists()


def test_a_run_that_was_killed_goes_on(tmp_path, names, monkeypatch):
    monkeypatch.setattr("mlx_aimv2.vectors.writer.PART_S", 0.0)
    monkeypatch.setattr("mlx_aimv2.vectors.shard_folder.SHARD_S", 0.0)
    run(tmp_path / "v.npy", names, stop_after=5, kill=True)
    assert not (tmp_path / "v.npy").exists() and len(values(tmp_path / "v.npy.part")) == 5
    with pytest.raises(
        InputError, match=r"there is no such file; what a run left that was .* is in .*v\.npy\.part"
    ):
        read_vectors(tmp_path / "v.npy")
    Path(names[1]).write_bytes(b"changed...")
    said, embedded = run(tmp_path / "v.npy", names)
    assert [Path(name).stem for name in embedded] == list("bfgh")
    assert "an earlier run was cut short, and left 5 vectors in" in said[0] and "4 of 8 are still" in said[0]
    assert values(tmp_path / "v.npy") == {**WHOLE, "b": ord("c")}


def test_a_killed_run_of_another_model_is_refused_and_dropped_when_asked(tmp_path, names, monkeypatch):
    monkeypatch.setattr("mlx_aimv2.vectors.shard_folder.SHARD_ROWS", 1)
    run(tmp_path / "v.npz", names, stop_after=3, kill=True)
    message = r"v\.npz\.part holds vectors of another kind \(model: tiny, now lit\): they cannot be mixed; .*--force"
    with pytest.raises(InputError, match=message):
        run(tmp_path / "v.npz", names, made_by=OTHER)
    assert len(values(tmp_path / "v.npz.part")) == 3
    run(tmp_path / "v.npz", names, made_by=OTHER, force=True)
    assert read_vectors(tmp_path / "v.npz").fingerprint == OTHER


@every_format
def test_a_full_disk_at_the_end_loses_nothing(tmp_path, names, ending, monkeypatch):
    with monkeypatch.context() as broken, pytest.raises(OutputError) as caught:

        def fail(*_):
            raise OutputError("v cannot be written: No space left on device")

        broken.setitem(WRITERS, ending, fail)
        run(tmp_path / f"v{ending}", names)
    part = tmp_path / f"v{ending}.part"
    assert str(caught.value) == (
        f"v cannot be written: No space left on device; the 8 vectors are in {part}:"
        " the same command goes on with them"
    )
    assert values(part) == WHOLE
    _, embedded = run(tmp_path / f"v{ending}", names)
    assert embedded == [] and values(tmp_path / f"v{ending}") == WHOLE


@pytest.mark.parametrize("output", ["v.npy", "v/"])
def test_vectors_that_no_shard_takes_go_elsewhere(tmp_path, names, output, monkeypatch):
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))

    def fail(path, *_):
        raise OutputError(f"{path} cannot be written: No space left on device")

    monkeypatch.setattr("mlx_aimv2.vectors.shard_folder.write_shard", fail)
    monkeypatch.setitem(WRITERS, ".npy", fail)
    with pytest.raises(OutputError, match=r"No space left on device; all 8 vectors are in .*vectors\.npz$"):
        run(f"{tmp_path}/{output}", names)
    (found,) = elsewhere.rglob("*.npz")
    assert values(found) == WHOLE


def test_vectors_that_can_go_nowhere_are_called_lost(tmp_path, names, monkeypatch):
    def fail(path, *_):
        raise OutputError(f"{path} cannot be written: File too large")

    monkeypatch.setattr("mlx_aimv2.vectors.shard_folder.write_shard", fail)
    monkeypatch.setattr("mlx_aimv2.vectors.writer.write", fail)
    with pytest.raises(OutputError, match=r"File too large; all 8 vectors are lost$"):
        run(f"{tmp_path}/v/", names)


@pytest.mark.parametrize(
    ("output", "needed"), [("v.npy", "192 bytes"), ("v/", "96 bytes"), ("v.jsonl", "432 bytes")]
)
def test_too_little_room_is_found_before_the_work(tmp_path, names, output, needed, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(90))
    message = (
        f"takes about {needed} while it is written, and its disk has 90 bytes free: make room, or write to"
    )
    with pytest.raises(OutputError, match=message):
        run(f"{tmp_path}/{output}", names)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(432))
    run(f"{tmp_path}/{output}", names)
    check_room(tmp_path / "new" / "v", 432)


def test_nothing_is_written_where_nothing_was_embedded(tmp_path, names):
    said, _ = run(tmp_path / "v.npz", names, stop_after=0)
    assert said == [f"nothing to write to {tmp_path / 'v.npz'}"]
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_grids_of_two_sizes_do_not_fit_one_file_also_when_a_shard_is_full(tmp_path, names, monkeypatch):
    monkeypatch.setattr("mlx_aimv2.vectors.shard_folder.SHARD_ROWS", 1)
    writer = open_writer(str(tmp_path / "v.npz"), MADE_BY, WriterOptions(), ignore)
    writer.remaining(names)
    writer.add(names[0], np.ones((2, 3, 4), np.float32))
    with pytest.raises(InputError, match=r"b\.jpg has a token grid of \(3, 3\) and others of \(2, 3\)"):
        writer.add(names[1], np.ones((3, 3, 4), np.float32))
    writer.close(interrupted=True)
    assert read_vectors(tmp_path / "v.npz").embeddings.shape == (1, 2, 3, 4)


def test_two_runs_do_not_write_one_file(tmp_path, names):
    folder = tmp_path / "v.npz.part"
    folder.mkdir()
    lock = lock_folder(folder, OutputError("locked"))
    with pytest.raises(OutputError, match=r"another run is writing to .*v\.npz\.part"):
        run(tmp_path / "v.npz", names)
    lock.release()


# --- folders


def test_a_folder_is_continued_and_says_so(tmp_path, names):
    output = f"{tmp_path}/v/"
    assert run(output, names[:3])[0] == [f"wrote 3 vectors in all to {tmp_path / 'v'}"]
    Path(names[1]).write_bytes(b"changed...")
    Path(names[2]).unlink()
    said, embedded = run(output, [*names[:2], *names[3:]])
    assert [Path(name).stem for name in embedded] == list("bdefgh")
    assert said == [
        f"1 image of {tmp_path / 'v'} cannot be found any more: --prune removes the vectors",
        f"1 of them are in {tmp_path / 'v'} already",
        "embedding 1 image again, because the content has changed",
        f"wrote 8 vectors in all to {tmp_path / 'v'}",
    ]


def test_a_folder_is_replaced_when_asked_and_not_before_all_is_done(tmp_path, names):
    output, folder = f"{tmp_path}/v/", tmp_path / "v"
    run(output, names)
    said, _ = run(output, names[:4], force=True, made_by=OTHER, stop_after=2)
    assert values(folder) == WHOLE and len(values(tmp_path / "v.part")) == 2
    assert f"{folder} is left as it was; the 2 vectors of this run are in {folder}.part" in said[0]
    _, embedded = run(output, names[:4], force=True, made_by=OTHER)
    assert len(embedded) == 2
    assert values(folder) == dict(zip("abcd", range(4), strict=True))
    assert read_vectors(folder).fingerprint == OTHER and not (tmp_path / "v.part").exists()


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_folder_whose_manifest_is_lost_is_refused_and_replaced_when_asked(tmp_path, names, damage):
    output, folder = f"{tmp_path}/v/", tmp_path / "v"
    run(output, names)
    (folder / MANIFEST).write_text("{") if damage == "damaged" else (folder / MANIFEST).unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match=r"--force") as caught:
        run(output, names)
    assert not isinstance(caught.value, OutputError)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    run(output, names[:2], force=True)
    assert values(folder) == {"a": 0, "b": 1}


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_other_things_is_never_written_to_or_replaced(tmp_path, names, force):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "holiday.jpg").write_text("mine")
    with pytest.raises(InputError, match=r"v holds other files \(holiday\.jpg\).*: name a new folder"):
        run(f"{tmp_path}/v/", names, force=force)
    assert [path.name for path in (tmp_path / "v").iterdir()] == ["holiday.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "v"]


def test_a_link_to_a_folder_stays_when_the_folder_is_replaced(tmp_path, names):
    run(f"{tmp_path}/real/", names)
    (tmp_path / "v").symlink_to("real")
    run(f"{tmp_path}/v/", names[:2], force=True)
    assert (tmp_path / "v").is_symlink() and len(values(tmp_path / "real")) == 2


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("v.npz", WriterOptions(prune=True), r"--prune is for a folder of shards, and .*v\.npz is a file"),
        ("v/", WriterOptions(prune=True, text=True), "--prune is for images, and texts are never gone"),
        ("file/", WriterOptions(), "file is not a folder: name another"),
        ("file/", WriterOptions(force=True), "file is not a folder: name another"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(tmp_path, output, options, message):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=message):
        check_output(f"{tmp_path}/{output}", [], options)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("ending", [".npz", ".npy"])  # a single file, and files that are replaced together
@pytest.mark.parametrize("lasting", [False, True], ids=["failed", "killed"])
def test_a_file_is_the_old_or_the_new_one_whatever_fails(
    tmp_path, names, faults, ending, lasting, monkeypatch
):
    monkeypatch.setattr("mlx_aimv2.vectors.shard_folder.SHARD_ROWS", 2)
    names = names[:3]
    whole = dict(zip("abc", range(3), strict=True))

    def begin(folder):
        folder.mkdir()
        write(folder / f"v{ending}", ["old"], np.ones((1, 3), np.float32), MADE_BY)

    def check(folder, step):
        assert values(folder / f"v{ending}") in ({"old": 1}, whole)

    def work(folder):
        run(folder / f"v{ending}", names, force=True)

    assert faults.everywhere(tmp_path, work, check, begin, lasting) >= 20
