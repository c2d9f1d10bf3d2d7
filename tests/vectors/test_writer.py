"""Writers of vectors: nothing that is there is lost, nothing that is done is lost."""

from __future__ import annotations

import json
import shutil
import threading
from collections import namedtuple
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest

from mlx_aimv2.errors import Advice, BrokenImageError, ExistsError, InputError, OutputError
from mlx_aimv2.events import Notice, Skipped, ignore
from mlx_aimv2.storage.locks import lock_folder
from mlx_aimv2.vectors import shard_folder
from mlx_aimv2.vectors.files import WRITERS, write
from mlx_aimv2.vectors.manifest import MANIFEST
from mlx_aimv2.vectors.options import WriterOptions
from mlx_aimv2.vectors.reading import read_vectors
from mlx_aimv2.vectors.writer import Rank, check_output, check_room, open_writer

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


# --- failures


def run_failing(output, names, broken, **options):
    """A run in which the images named by the letters of ``broken`` fail; what it said, and what it tried."""
    said = []
    writer = open_writer(f"{output}/", MADE_BY, WriterOptions(**options), said.append)
    tried = [names[k] for k in writer.remaining(names)]
    for name in tried:
        if Path(name).stem in broken:
            writer.fail(name, BrokenImageError(f"{name}: it is cut off"))
        else:
            writer.add(name, vector_of(name))
    writer.close()
    return said, "".join(Path(name).stem for name in tried)


def failed(output) -> str:
    path = Path(output) / "errors.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert all(line["kind"] == "BrokenImageError" and line["reason"] == "it is cut off" for line in found)
    return "".join(Path(line["path"]).stem for line in found)


def test_an_image_that_failed_is_tried_again_when_it_changes_or_when_asked(tmp_path, names):
    output = tmp_path / "v"
    assert run_failing(output, names, "bdf") == ([Notice(f"wrote 5 vectors in all to {output}")], "abcdefgh")
    assert failed(output) == "bdf"
    said, tried = run_failing(output, names, "bdf")
    assert tried == "" and failed(output) == "bdf"
    reason = f"failed before and did not change (see {output}/errors.jsonl)"
    advice = Advice("{} tries again", "retry_failed", True)
    assert said[1] == Skipped("3 images", reason, 3, advice)
    Path(names[1]).write_bytes(b"\1 changed")
    Path(names[3]).unlink()
    assert run_failing(output, [*names[:3], *names[4:]], "b")[1] == "b" and failed(output) == "fb"
    assert run_failing(output, names[4:], "f", retry_failed=True)[1] == "f" and failed(output) == "bf"
    assert run_failing(output, names[:3], "", retry_failed=True)[1] == "b" and failed(output) == "f"
    assert run_failing(output, names[4:], "", retry_failed=True)[1] == "f" and failed(output) == ""
    assert not (output / "errors.jsonl").exists()
    # the images that failed at first are in their places
    assert list(values(output)) == list("abcefgh")


def test_an_image_that_can_no_longer_be_read_loses_its_vector(tmp_path, names):
    output = tmp_path / "v"
    run_failing(output, names, "")
    Path(names[2]).write_bytes(b"broken now")
    assert run_failing(output, names, "c")[1] == "c"
    assert failed(output) == "c" and list(values(output)) == list("abdefgh")
    assert run_failing(output, names, "c")[1] == ""


def test_an_image_that_changes_while_it_is_read_is_tried_again(tmp_path, names):
    writer = open_writer(f"{tmp_path}/v/", MADE_BY, WriterOptions(), ignore)
    assert writer.remaining(names[:1]) == [0]
    Path(names[0]).write_bytes(b"\7 complete now")
    writer.fail(names[0], BrokenImageError(f"{names[0]}: it is cut off"))
    writer.close()
    assert failed(tmp_path / "v") == "a"
    assert run_failing(tmp_path / "v", names[:1], "")[1] == "a" and failed(tmp_path / "v") == ""


def test_an_interrupted_run_remembers_what_failed(tmp_path, names):
    writer = open_writer(f"{tmp_path}/v/", MADE_BY, WriterOptions(), ignore)
    writer.remaining(names)
    writer.fail(names[0], BrokenImageError("it is cut off"))
    writer.add(names[1], vector_of(names[1]))
    writer.close(interrupted=True)
    assert failed(tmp_path / "v") == "a"
    assert run_failing(tmp_path / "v", names, "")[1] == "cdefgh"


def test_a_single_file_has_no_list_of_failures(tmp_path, names):
    writer = open_writer(str(tmp_path / "v.npz"), MADE_BY, WriterOptions(), ignore)
    writer.remaining(names)
    writer.fail(names[0], BrokenImageError("it is cut off"))
    writer.add(names[1], vector_of(names[1]))
    writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "v.npz"]


# --- order


def test_rows_stay_in_the_order_of_the_input_whatever_comes_later(tmp_path, names):
    output = f"{tmp_path}/v/"
    run(output, names, stop_after=3)
    Path(names[1]).write_bytes(b"\1 and more")
    run(output, names)
    assert list(values(tmp_path / "v")) == list("abcdefgh")
    for letter in "xy":
        (tmp_path / "images" / f"{letter}.jpg").write_bytes(b"\7")
    new = [str(tmp_path / "images" / f"{letter}.jpg") for letter in "xy"]
    run(output, [new[0], *names, new[1]])  # new images stand behind the others
    assert list(values(tmp_path / "v")) == list("abcdefghxy")
    assert "".join(Path(p).stem for p in read_vectors(tmp_path / "v").paths) == "abcdefghxy"


def test_another_list_stands_behind_the_first_in_its_own_order(tmp_path, names):
    output = f"{tmp_path}/v/"
    run(output, names[4:])
    run(output, names[:4], stop_after=2)
    run(output, names[:4])
    assert list(values(tmp_path / "v")) == list("efghabcd")


# --- several processes


def rank_run(output, names, number, size, broken="", **options):
    said, rank = [], Rank(number, size)
    check_output(f"{output}/", names, WriterOptions(**options), rank)
    writer = open_writer(f"{output}/", MADE_BY, WriterOptions(**options), said.append, rank)
    tried = [names[k] for k in writer.remaining(names)]
    return writer, said, tried, broken


def finish(writer, said, tried, broken):
    for name in tried:
        if Path(name).stem in broken:
            writer.fail(name, BrokenImageError("it is cut off"))
        else:
            writer.add(name, vector_of(name))
    writer.close()
    return [event.message for event in said if isinstance(event, Notice)]


@pytest.mark.parametrize("size", [2, 3, 8, 11])
def test_ranks_give_the_rows_of_one_process(tmp_path, names, size, monkeypatch):
    monkeypatch.setattr("mlx_aimv2.vectors.shard_folder.SHARD_ROWS", 2)
    output = tmp_path / "v"
    ranks = [rank_run(output, names, number, size, "d") for number in range(size)]
    assert sorted(name for _, _, tried, _ in ranks for name in tried) == names
    said = [finish(*rank) for rank in reversed(ranks)]
    for messages in said[:-1]:
        assert "other ranks go on" in messages[-1]
    assert said[-1] == [f"wrote 7 vectors in all to {output}"]
    whole = tmp_path / "whole"
    run_failing(whole, names, "d")
    found, expected = read_vectors(output), read_vectors(whole)
    assert found.paths == expected.paths and np.array_equal(found.embeddings, expected.embeddings)
    assert failed(output) == failed(whole) == "d"
    manifest = json.loads((output / MANIFEST).read_text())
    assert manifest["rows"] == 7 and not list(output.glob(f"*/{MANIFEST}"))
    assert run_failing(output, names, "")[1] == ""  # one process goes on with it


def test_the_end_of_ranks_that_end_together_is_said_once(tmp_path, names):
    ranks = [rank_run(tmp_path / "v", names, number, 2) for number in (0, 1)]
    for writer, _, tried, _ in ranks:
        for name in tried:
            writer.add(name, vector_of(name))
        writer._close_shards(interrupted=False)
        writer._shards.release()
    for writer, *_ in ranks:
        writer._merge()
        writer._shards.release()
    said = [event.message for _, messages, _, _ in ranks for event in messages if isinstance(event, Notice)]
    assert said == [f"wrote 8 vectors in all to {tmp_path / 'v'}"]


def test_ranks_that_have_not_been_merged_are_read_and_merged_by_the_next_run(tmp_path, names):
    output = tmp_path / "v"
    first, second = (rank_run(output, names, number, 2) for number in (0, 1))
    finish(*first)
    for name in second[2][:2]:
        second[0].add(name, vector_of(name))
    second[0]._shards.flush()  # and then it is killed
    second[0]._shards.release()
    assert list(values(output)) == list("abcdef")
    again = [rank_run(output, names, number, 4) for number in range(4)]  # with another number of processes
    assert [name for _, _, tried, _ in again for name in tried] == names[6:]
    for rank in again:
        finish(*rank)
    assert list(values(output)) == list("abcdefgh")


def test_an_image_that_two_processes_embed_is_there_once(tmp_path, names):
    output = tmp_path / "v"
    one = rank_run(output, [*names[:3], names[0]], 0, 2)
    other = rank_run(output, [*names[3:], names[0]], 1, 2)
    finish(*one)
    other[0].add(names[0], vector_of(names[0]))
    other[0]._shards.flush()
    assert sorted(values(output)) == ["a", "b"]
    finish(*other)
    assert sorted(values(output)) == ["a", "b", "g", "h"]
    assert len(read_vectors(output).paths) == 4


def test_ranks_embed_changed_images_again_and_remove_those_that_are_gone(tmp_path, names):
    output = tmp_path / "v"
    for rank in [rank_run(output, names, number, 2) for number in (0, 1)]:
        finish(*rank)
    Path(names[1]).write_bytes(b"\x09 changed")
    Path(names[6]).write_bytes(b"broken now")
    Path(names[7]).unlink()
    left = names[:7]
    ranks = [rank_run(output, left, number, 2, "g", prune=True) for number in (0, 1)]
    assert [Path(name).stem for _, _, tried, _ in ranks for name in tried] == ["b", "g"]
    for rank in ranks:
        finish(*rank)
    assert values(output) == {"a": 0, "b": 9, "c": 2, "d": 3, "e": 4, "f": 5} and failed(output) == "g"


def test_a_rank_runs_once_at_a_time(tmp_path, names, monkeypatch):
    monkeypatch.setattr("mlx_aimv2.vectors.writer.PATIENCE_S", 0.0)
    rank_run(tmp_path / "v", names, 0, 2)[0]._shards.release()
    first = rank_run(tmp_path / "v", names, 1, 2)
    with pytest.raises(OutputError, match=r"another run is writing to .*v/rank-1-of-2: wait for it"):
        rank_run(tmp_path / "v", names, 1, 2)
    with pytest.raises(OutputError, match=r"another run is writing to .*v/rank-1-of-2: wait for it"):
        run(f"{tmp_path}/v/", names)
    finish(*first)
    run(f"{tmp_path}/v/", names)
    assert values(tmp_path / "v") == WHOLE


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("v.npz", {}, r"2 processes cannot write one file, .*v\.npz: end its name in /"),
        ("v/", {"force": True}, r"--force is for a single process: name a new folder, or remove .*v"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(tmp_path, names, output, options, message):
    with pytest.raises(InputError, match=message):
        check_output(f"{tmp_path}/{output}", names, WriterOptions(**options), Rank(0, 2))


def test_a_folder_of_ranks_is_replaced_when_asked(tmp_path, names):
    for rank in [rank_run(tmp_path / "v", names, number, 2) for number in (0, 1)]:
        finish(*rank)
    run(f"{tmp_path}/v/", names[:2], force=True, made_by=OTHER)
    assert values(tmp_path / "v") == {"a": 0, "b": 1} and not list((tmp_path / "v").glob("rank*"))
    for rank in [rank_run(tmp_path / "w", names, number, 2) for number in (0, 1)]:
        finish(*rank)
    (tmp_path / "w" / "rank-0-of-2" / "notes.txt").touch()
    with pytest.raises(
        InputError, match=r"rank-0-of-2 holds other files \(notes\.txt\), which --force does not"
    ):
        run(f"{tmp_path}/w/", names, force=True)


@pytest.mark.parametrize("lasting", [False, True], ids=["failed", "killed"])
def test_ranks_are_merged_whole_or_not_at_all_whatever_fails(tmp_path, names, faults, lasting):
    def begin(folder):
        for number in (0, 1):
            writer, _, tried, _ = rank_run(folder, names, number, 2)
            for name in tried:
                if Path(name).stem == "d":
                    writer.fail(name, BrokenImageError("it is cut off"))
                else:
                    writer.add(name, vector_of(name))
            writer._shards.flush()
            writer._shards.release()
            writer._shards.settle()

    whole = {letter: value for letter, value in WHOLE.items() if letter != "d"}

    def check(folder, step):
        assert values(folder) == whole and list(values(folder)) == list("abcefgh")
        assert run_failing(folder, names, "d")[1] == ""
        assert values(folder) == whole and failed(folder) == "d"
        assert json.loads((folder / MANIFEST).read_text())["rows"] == 7

    def work(folder):
        run_failing(folder, names, "d")

    assert faults.everywhere(tmp_path, work, check, begin, lasting) >= 12


# --- the thread that writes


def test_a_shard_that_cannot_be_written_ends_the_run_and_loses_nothing(tmp_path, names, monkeypatch):
    monkeypatch.setattr("mlx_aimv2.vectors.shard_folder.SHARD_ROWS", 2)
    real = shard_folder.write_shard

    def fail(path, *rest):
        raise OutputError(f"{path} cannot be written: No space left on device")

    writer = open_writer(f"{tmp_path}/v/", MADE_BY, WriterOptions(), ignore)
    writer.remaining(names)
    for name in names[:2]:
        writer.add(name, vector_of(name))
    writer._shards.settle()
    monkeypatch.setattr(shard_folder, "write_shard", fail)
    for name in names[2:4]:
        writer.add(name, vector_of(name))  # a thread tries to write them
    wait([writer._shards._writing[1]])
    with pytest.raises(OutputError, match="No space left on device"):
        writer.add(names[4], vector_of(names[4]))
    monkeypatch.setattr(shard_folder, "write_shard", real)
    writer.close(interrupted=True)
    assert values(tmp_path / "v") == dict(zip("abcd", range(4), strict=True))


def test_vectors_come_in_while_a_shard_is_written(tmp_path, names, monkeypatch):
    monkeypatch.setattr("mlx_aimv2.vectors.shard_folder.SHARD_ROWS", 2)
    real, go = shard_folder.write_shard, threading.Event()

    def slowly(*args):
        assert go.wait(60)
        real(*args)

    monkeypatch.setattr(shard_folder, "write_shard", slowly)
    writer = open_writer(f"{tmp_path}/v/", MADE_BY, WriterOptions(), ignore)
    writer.remaining(names)
    for name in names[:3]:
        writer.add(name, vector_of(name))  # the third does not wait for the shard of the first two
    assert not writer._shards.shards
    go.set()
    for name in names[3:]:
        writer.add(name, vector_of(name))
    writer.close()
    assert values(tmp_path / "v") == WHOLE
