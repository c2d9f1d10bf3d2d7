"""A folder of shards: what it continues, what it refuses, and what is left whatever fails."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest

from mlx_aimv2.errors import InputError, OutputError
from mlx_aimv2.vectors.files import write
from mlx_aimv2.vectors.reading import read_vectors
from mlx_aimv2.vectors.shard_folder import ShardFolder
from mlx_aimv2.vectors.shards import MANIFEST

MADE_BY = {"name": "tiny", "checkpoint": "0123abcd", "pooling": "mean", "normalized": True, "revision": None}


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 5)).astype(np.float32)


def read_npz(path: Path) -> tuple[list[str], np.ndarray, dict]:
    with np.load(path) as data:
        return data["paths"].tolist(), data["embeddings"], json.loads(str(data["fingerprint"]))


def opened(folder: Path, fingerprint: dict = MADE_BY, rows: int = 2) -> ShardFolder:
    shards = ShardFolder(folder, fingerprint)
    shards.full_rows = rows
    return shards


def filled(
    folder: Path, names: list[str], rows_in_shard: int = 2, fingerprint: dict = MADE_BY
) -> ShardFolder:
    shards = opened(folder, fingerprint, rows_in_shard)
    for name in names:
        shards.add(name, np.full(3, len(name), np.float32))
    shards.close()
    return shards


def done(shards: ShardFolder) -> set[str]:
    return {row.name for row in shards.index}


def content(folder: Path) -> list[str]:
    """All names in the shards that the manifest lists, in order."""
    manifest = json.loads((folder / MANIFEST).read_text())
    return [name for shard in manifest["shards"] for name in read_npz(folder / shard["file"])[0]]


def test_vectors_are_spread_over_shards_and_the_last_may_be_smaller(tmp_path):
    filled(tmp_path / "out", ["a", "bb", "ccc", "dddd", "eeeee"])
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["embeddings-00000.npz", "embeddings-00001.npz", "embeddings-00002.npz", MANIFEST]
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["fingerprint"] == MADE_BY
    assert [shard["rows"] for shard in manifest["shards"]] == [2, 2, 1]
    names, vectors, note = read_npz(tmp_path / "out" / "embeddings-00001.npz")
    assert names == ["ccc", "dddd"] and vectors[:, 0].tolist() == [3, 4] and note == MADE_BY


def test_a_full_shard_is_on_disk_before_the_next_vector(tmp_path):
    shards = opened(tmp_path, MADE_BY, 2)
    for name in "abc":
        shards.add(name, np.zeros(3, np.float32))
    assert done(ShardFolder(tmp_path, MADE_BY)) == {"a", "b"}


def test_closing_twice_or_without_vectors_writes_nothing_more(tmp_path):
    shards = filled(tmp_path / "out", ["a"])
    shards.close()
    assert len(list((tmp_path / "out").iterdir())) == 2
    ShardFolder(tmp_path / "other", MADE_BY).close()
    assert list((tmp_path / "other").iterdir()) == []


def test_a_second_run_continues_the_first(tmp_path):
    filled(tmp_path, ["a", "b", "c"])
    shards = opened(tmp_path, dict(MADE_BY))
    assert done(shards) == {"a", "b", "c"}
    shards.add("d", np.zeros(3, np.float32))
    shards.close()
    assert content(tmp_path) == ["a", "b", "c", "d"]


def test_what_a_run_wrote_that_died_before_the_manifest_is_taken_up(tmp_path):
    filled(tmp_path, ["a", "b"])
    write(tmp_path / "embeddings-00001.npz", ["c", "d"], rows(2), MADE_BY)  # and no line in the manifest
    shards = opened(tmp_path, MADE_BY, 2)
    assert done(shards) == {"a", "b", "c", "d"}
    shards.add("e", np.zeros(5, np.float32))
    shards.close()
    assert content(tmp_path) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("damage", ["cut off", "another model"])
def test_a_shard_that_does_not_belong_there_is_refused_and_stays(tmp_path, damage):
    filled(tmp_path, ["a", "b"])
    stranger = tmp_path / "embeddings-00001.npz"
    write(stranger, ["c"], rows(1), {**MADE_BY, "pooling": "max"})
    if damage == "cut off":
        stranger.write_bytes(stranger.read_bytes()[:50])
    before = stranger.read_bytes()
    with pytest.raises(
        InputError, match=r"embeddings-00001\.npz is not in the manifest and cannot be used: move it away"
    ):
        ShardFolder(tmp_path, MADE_BY)
    assert stranger.read_bytes() == before


def test_the_manifest_is_there_before_the_first_shard(tmp_path, faults):
    with faults.watch() as steps:
        filled(tmp_path / "out", ["a", "b", "c"])
    names = [path.name.split(".")[1] for step, path in steps if step == "replace"]
    assert names == ["manifest", "embeddings-00000", "manifest", "embeddings-00001", "manifest"]


def test_a_failed_manifest_can_be_tried_again(tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise OSError(28, "No space left on device")

    shards = opened(tmp_path, MADE_BY, 10)
    shards.add("a", np.zeros(3, np.float32))
    with monkeypatch.context() as broken:
        broken.setattr(Path, "write_text", fail)
        with pytest.raises(OutputError, match=r"manifest\.json cannot be written: No space left"):
            shards.close()
    shards.close()
    assert content(tmp_path) == ["a"]


def test_a_shard_is_full_at_so_many_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("mlx_aimv2.vectors.shard_folder.SHARD_BYTES", 3 * 4 * 8)
    shards = ShardFolder(tmp_path, MADE_BY)
    for name in "abcdefg":
        shards.add(name, np.zeros(8, dtype=np.float32))
    assert list(shards.shards.values()) == [3, 3]


@pytest.mark.parametrize("name", ["holiday.jpg", "subfolder"])
def test_a_folder_of_other_files_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=rf"holds other files \({name}\): name a new folder"):
        ShardFolder(tmp_path, MADE_BY)


def test_hidden_files_do_not_matter(tmp_path):
    (tmp_path / ".DS_Store").touch()
    assert done(ShardFolder(tmp_path, MADE_BY)) == set()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        "{}",
        '{"fingerprint": {}}',
        '{"fingerprint": "tiny", "shards": []}',
        '{"fingerprint": {}, "shards": 3}',
        '{"fingerprint": {}, "shards": "abc"}',
        '{"fingerprint": {}, "shards": [{"file": "a.npz"}]}',
        '{"fingerprint": {}, "shards": [{"file": "a.npz", "rows": "many"}]}',
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json is not a manifest of embeddings"):
        ShardFolder(tmp_path, {})


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut off", b"something else", None, "npy"], ids=repr)
def test_a_shard_that_is_gone_or_damaged_is_named(tmp_path, damage):
    filled(tmp_path, ["a", "b"])
    shard = tmp_path / "embeddings-00000.npz"
    shard.unlink()
    if damage == "npy":
        with shard.open("wb") as file:
            np.save(file, rows(2))
    elif damage is not None:
        shard.write_bytes(damage)
    with pytest.raises(
        InputError,
        match=r"00000\.npz is in the manifest and cannot be used: move it away \(.*cannot be read",
    ):
        ShardFolder(tmp_path, MADE_BY)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/out cannot be written: Not a directory"):
        ShardFolder(tmp_path / "file" / "out", MADE_BY)


def test_grids_of_two_sizes_do_not_fit_one_shard(tmp_path):
    shards = ShardFolder(tmp_path, MADE_BY)
    shards.add("a.jpg", np.zeros((2, 3, 4), np.float32))
    with pytest.raises(InputError, match=r"b\.jpg has a token grid of \(3, 3\) and others of \(2, 3\)"):
        shards.add("b.jpg", np.zeros((3, 3, 4), np.float32))
    shards.close()
    assert content(tmp_path) == ["a.jpg"]


LOCKER = """
import sys, pathlib
from mlx_aimv2.errors import OutputError
from mlx_aimv2.storage.locks import lock_folder
lock = lock_folder(pathlib.Path(sys.argv[1]), OutputError("locked"))
print("locked", flush=True)
sys.stdin.read()
"""


def test_two_runs_do_not_write_to_one_folder(tmp_path):
    import subprocess
    import sys

    with subprocess.Popen(
        [sys.executable, "-c", LOCKER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(
            OutputError, match=r"another run is writing to .*: wait for it, or name another folder"
        ):
            ShardFolder.locked(tmp_path, MADE_BY)
    ShardFolder.locked(tmp_path, MADE_BY).release()


@pytest.mark.parametrize("count", [1, 2])
def test_shards_without_a_manifest_are_refused_and_stay(tmp_path, count):
    for number in range(count):
        write(tmp_path / f"embeddings-0000{number}.npz", ["a"], rows(1), MADE_BY)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    message = (
        r"holds shards \(embeddings-00000\.npz\) and no manifest\.json: put it back, or replace .* --force"
    )
    with pytest.raises(InputError, match=message):
        ShardFolder(tmp_path, MADE_BY)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_manifest_that_leads_elsewhere_is_refused(tmp_path):
    shards = [{"file": "../v.npz", "rows": 1}]
    (tmp_path / "manifest.json").write_text(json.dumps({"fingerprint": MADE_BY, "shards": shards}))
    with pytest.raises(InputError, match=r"is not a manifest of embeddings: it names '\.\./v\.npz'"):
        ShardFolder(tmp_path, MADE_BY)


@pytest.fixture
def clock(monkeypatch):
    """Says how late it is, in seconds."""
    now = [1000.0]
    monkeypatch.setattr("mlx_aimv2.vectors.shard_folder.time.monotonic", lambda: now[0])
    return now


def test_a_shard_is_written_after_some_minutes(tmp_path, clock):
    shards = ShardFolder(tmp_path, MADE_BY)
    for name, now, written in (("a", 1299, []), ("b", 1300, [2]), ("c", 1599, [2]), ("d", 1600, [2, 2])):
        clock[0] = now
        shards.add(name, np.zeros(4, np.float32))
        assert list(shards.shards.values()) == written, name


def test_the_clock_begins_anew_with_every_shard_whatever_filled_it(tmp_path, clock):
    shards = opened(tmp_path, MADE_BY, 2)
    for name, now, written in (("a", 1200, []), ("b", 1299, [2]), ("c", 1598, [2]), ("d", 1599, [2, 2])):
        clock[0] = now
        shards.add(name, np.zeros(4, np.float32))
        assert list(shards.shards.values()) == written, name


def test_a_folder_may_have_a_clock_of_its_own(tmp_path, clock):
    shards = ShardFolder(tmp_path, MADE_BY)
    shards.full_s = 30
    clock[0] += 30
    shards.add("a", np.zeros(4, np.float32))
    assert list(shards.shards.values()) == [1]


@pytest.mark.parametrize(("count", "expected"), [(2, [3]), (3, [3]), (4, [3, 1]), (6, [3, 3])])
def test_a_shard_is_full_at_exactly_so_many_rows(tmp_path, count, expected):
    shards = opened(tmp_path, MADE_BY, 3)
    for name in "abcdef"[:count]:
        shards.add(name, np.zeros(4, np.float32))
    assert list(shards.shards.values()) == [3] * (count // 3)
    shards.close()
    assert list(shards.shards.values()) == ([2] if count == 2 else expected)


# --- a folder that is continued


class Images:
    """Files that stand for images; the vector of one is made of its content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def write(self, name: str, content: int, mtime: int = 1_000_000) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([content]) * 10)
        os.utime(path, (mtime, mtime))
        return path


def vector_of(name: str) -> np.ndarray:
    return np.full(3, Path(name).read_bytes()[0], np.float32)


def run(
    folder: Path, names: list[Path | str], prune: bool = False, broken: tuple[str, ...] = ()
) -> list[str]:
    """What a run does with images: those that it embeds."""
    shards = opened(folder, MADE_BY, 2)
    if prune:
        for row in shards.index.gone():
            shards.index.drop(row)
    left = shards.index.remaining(map(str, names))
    for name in left:
        if name not in broken:
            shards.add(name, vector_of(name))
    shards.close()
    return left


def read_both_ways(folder: Path) -> dict[str, float]:
    """The first number of each vector by its name, the same in all shard files and by the manifest."""
    everything = {}
    for shard in sorted(folder.glob("*.npz")):
        names, vectors, _ = read_npz(shard)
        assert not everything.keys() & set(names), "a name is there twice"
        everything |= dict(zip(names, vectors[:, 0].tolist(), strict=True))
    found = read_vectors(folder)
    assert dict(zip(found.paths, found.embeddings[:, 0].tolist(), strict=True)) == everything
    return everything


@pytest.fixture
def images(tmp_path):
    return Images(tmp_path / "images")


@pytest.fixture
def five(images):
    return [images.write(f"{name}.jpg", number) for number, name in enumerate("abcde")]


def test_an_image_that_was_replaced_gets_a_new_vector(tmp_path, images, five):
    run(tmp_path / "v", five)
    images.write("b.jpg", 77, mtime=2_000_000)
    images.write("d.jpg", 78)  # the same size and the same time, but another size follows
    (images.folder / "d.jpg").write_bytes(bytes([78]) * 11)
    os.utime(images.folder / "d.jpg", (1_000_000, 1_000_000))
    assert run(tmp_path / "v", five) == [str(five[1]), str(five[3])]
    values = {Path(name).stem: value for name, value in read_both_ways(tmp_path / "v").items()}
    assert values == {"a": 0, "b": 77, "c": 2, "d": 78, "e": 4}
    assert run(tmp_path / "v", five) == []


def test_an_image_that_was_only_touched_is_not_embedded_again_and_read_once(
    tmp_path, images, five, monkeypatch
):
    run(tmp_path / "v", five)
    os.utime(five[1], (2_000_000, 2_000_000))
    assert run(tmp_path / "v", five) == []
    monkeypatch.setattr(
        "mlx_aimv2.vectors.shard_rows.digest_of", lambda place: pytest.fail(f"{place} is read again")
    )
    assert run(tmp_path / "v", five) == []
    assert len(read_both_ways(tmp_path / "v")) == 5


def test_a_changed_image_that_cannot_be_embedded_loses_its_old_vector(tmp_path, images, five):
    run(tmp_path / "v", five)
    images.write("b.jpg", 77, mtime=2_000_000)
    assert run(tmp_path / "v", five, broken=(str(five[1]),)) == [str(five[1])]
    assert str(five[1]) not in read_both_ways(tmp_path / "v") and len(read_both_ways(tmp_path / "v")) == 4


def test_an_interrupted_run_keeps_old_vectors_until_it_comes_to_them(tmp_path, images, five):
    run(tmp_path / "v", five)
    images.write("b.jpg", 77, mtime=2_000_000)
    shards = ShardFolder(tmp_path / "v", MADE_BY)
    assert shards.index.remaining(map(str, five)) == [str(five[1])] and shards.index.changed == 1
    shards.close(interrupted=True)
    assert read_both_ways(tmp_path / "v")[str(five[1])] == 1
    assert run(tmp_path / "v", five) == [str(five[1])]


def test_an_image_that_changes_while_it_is_embedded_is_embedded_again(tmp_path, images, five):
    shards = ShardFolder(tmp_path / "v", MADE_BY)
    left = shards.index.remaining(map(str, five))
    images.write("b.jpg", 77, mtime=2_000_000)
    for number, name in enumerate(left):
        shards.add(name, np.full(3, number, np.float32))  # of what was there before
    shards.close()
    assert run(tmp_path / "v", five) == [str(five[1])]
    assert read_both_ways(tmp_path / "v")[str(five[1])] == 77


def test_images_that_are_gone_are_counted_and_stay_until_they_are_pruned(tmp_path, five):
    run(tmp_path / "v", five)
    five[0].unlink()
    five[3].unlink()
    shards = ShardFolder(tmp_path / "v", MADE_BY)
    assert sorted(row.name for row in shards.index.gone()) == [str(five[0]), str(five[3])]
    assert run(tmp_path / "v", five[1:3]) == [] and len(read_both_ways(tmp_path / "v")) == 5
    run(tmp_path / "v", five[1:3], prune=True)
    assert sorted(read_both_ways(tmp_path / "v")) == [str(five[1]), str(five[2]), str(five[4])]
    assert ShardFolder(tmp_path / "v", MADE_BY).index.gone() == []


def test_all_images_may_be_gone(tmp_path, five):
    run(tmp_path / "v", five)
    for path in five:
        path.unlink()
    run(tmp_path / "v", [], prune=True)
    assert [path.name for path in (tmp_path / "v").iterdir()] == [MANIFEST]
    with pytest.raises(InputError, match="holds no vectors"):
        read_vectors(tmp_path / "v")


SPELLINGS = {
    "absolute": lambda folder: folder / "a.jpg",
    "dots": lambda folder: folder / ".." / folder.name / "a.jpg",
    "relative": lambda folder: "a.jpg",
    "here": lambda folder: "./a.jpg",
    "parent": lambda folder: f"../{folder.name}/a.jpg",
    "linked folder": lambda folder: folder.parent / "link" / "a.jpg",
    "linked file": lambda folder: folder.parent / "a-link.jpg",
}


@pytest.mark.parametrize("first", SPELLINGS)
def test_a_file_is_known_however_it_is_spelled(tmp_path, images, monkeypatch, first):
    images.write("a.jpg", 5)
    (tmp_path / "link").symlink_to(images.folder)
    (tmp_path / "a-link.jpg").symlink_to(images.folder / "a.jpg")
    monkeypatch.chdir(images.folder)
    name = str(SPELLINGS[first](images.folder))
    assert run(tmp_path / "v", [name]) == [name]
    monkeypatch.chdir(tmp_path)
    for spelling in ("absolute", "dots", "linked folder", "linked file"):
        assert run(tmp_path / "v", [SPELLINGS[spelling](images.folder)]) == [], spelling
    monkeypatch.chdir(images.folder)
    for spelling, spell in SPELLINGS.items():
        assert run(tmp_path / "v", [spell(images.folder)]) == [], spelling
    assert list(read_both_ways(tmp_path / "v")) == [name]


def test_one_file_is_embedded_once_however_often_it_is_named(tmp_path, images, monkeypatch):
    images.write("a.jpg", 5)
    monkeypatch.chdir(images.folder)
    assert run(tmp_path / "v", ["a.jpg", "./a.jpg", "a.jpg"]) == ["a.jpg"]


def test_files_of_one_name_in_two_folders_are_both_there(tmp_path, images, monkeypatch):
    for folder, value in (("x", 1), ("y", 2)):
        images.write(f"{folder}/a.jpg", value)
        monkeypatch.chdir(images.folder / folder)
        assert run(tmp_path / "v", ["a.jpg"]) == ["a.jpg"]
    assert read_both_ways(tmp_path / "v") == {"a.jpg": 1, str(images.folder / "y" / "a.jpg"): 2}
    for folder in "xy":
        monkeypatch.chdir(images.folder / folder)
        assert run(tmp_path / "v", ["a.jpg"]) == []


def test_images_that_moved_together_are_known(tmp_path, images, five, monkeypatch):
    monkeypatch.chdir(images.folder)
    run(tmp_path / "v", ["a.jpg", "b.jpg"])
    images.folder.rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    os.utime("a.jpg", (3_000_000, 3_000_000))
    (tmp_path / "elsewhere" / "b.jpg").write_bytes(b"another b")
    assert run(tmp_path / "v", ["a.jpg", "b.jpg"]) == ["b.jpg"]
    run(tmp_path / "v", [], prune=True)
    assert read_both_ways(tmp_path / "v") == {"a.jpg": 0, str(tmp_path / "elsewhere" / "b.jpg"): ord("a")}


def test_texts_are_known_by_their_words(tmp_path):
    for texts, left in ((["a", "b", "a"], ["a", "b"]), (["b", "c"], ["c"])):
        shards = ShardFolder(tmp_path, MADE_BY, texts=True)
        assert shards.index.remaining(texts) == left
        for text in left:
            shards.add(text, np.zeros(3, np.float32))
        shards.close()
    assert ShardFolder(tmp_path, MADE_BY).index.gone() == []


def as_an_older_version(folder: Path) -> None:
    """Rewrite the shards without marks of files."""
    for shard in folder.glob("*.npz"):
        names, vectors, note = read_npz(shard)
        write(shard, names, vectors, note)


def test_a_folder_of_an_older_version_is_continued(tmp_path, images, five):
    run(tmp_path / "v", five)
    as_an_older_version(tmp_path / "v")
    assert sum(row.mark is None for row in ShardFolder(tmp_path / "v", MADE_BY).index) == 5
    images.write("b.jpg", 77, mtime=4_000_000_000)  # later than its shard
    five[4].unlink()
    assert run(tmp_path / "v", five[:4]) == [str(five[1])]
    assert read_both_ways(tmp_path / "v") == {str(path): k if k != 1 else 77 for k, path in enumerate(five)}
    assert sum(row.mark is None for row in ShardFolder(tmp_path / "v", MADE_BY).index) == 4


@pytest.mark.parametrize("lasting", [False, True], ids=["failed", "killed"])
def test_a_folder_is_whole_and_goes_on_whatever_fails(tmp_path, faults, lasting):
    def begin(folder):
        (folder.parent / "images").mkdir()
        for number, name in enumerate("abcde"):
            path = folder.parent / "images" / name
            path.write_bytes(bytes([number]) * 10)
            os.utime(path, (1_000_000, 1_000_000))
        run(folder, [folder.parent / "images" / name for name in "abc"])
        (folder.parent / "images" / "b").write_bytes(bytes([77]) * 10)
        (folder.parent / "images" / "c").unlink()

    def work(folder):
        run(folder, [folder.parent / "images" / name for name in "abde"], prune=True)

    old = {"a": 0, "b": 1, "c": 2}
    new = {"a": 0, "b": 77, "d": 3, "e": 4}

    def check(folder, step):
        manifest = json.loads((folder / MANIFEST).read_text())
        assert all((folder / shard["file"]).is_file() for shard in manifest["shards"])
        found = read_vectors(folder)
        values = {Path(n).name: x for n, x in zip(found.paths, found.embeddings[:, 0].tolist(), strict=True)}
        assert len(found.paths) == len(values), "a name is there twice"
        assert all(value in (old.get(name), new.get(name)) for name, value in values.items())
        assert values.keys() >= old.keys() & new.keys(), "one is lost"
        work(folder)
        assert {Path(name).name: value for name, value in read_both_ways(folder).items()} == new

    assert faults.everywhere(tmp_path, work, check, begin, lasting) >= 20


def test_a_shard_is_on_disk_before_the_manifest_names_it_and_goes_after(tmp_path, images, five, faults):
    run(tmp_path / "v", five[:2])
    images.write("b.jpg", 77, mtime=2_000_000)
    with faults.watch() as steps:
        run(tmp_path / "v", five[:2])
    done = [(step, path.name.split(".")[1] if path.name[0] == "." else path.name) for step, path in steps]
    done = [
        (step, name) for step, name in done if step in ("replace", "sync", "unlink") and "partial" not in name
    ]
    names = ("embeddings-00001", "embeddings-00002", "manifest")
    each = [[("sync", name), ("replace", name), ("sync", "v"), ("unlink", name)] for name in names]
    assert done == [*itertools.chain(*each), ("unlink", "embeddings-00000.npz")]
