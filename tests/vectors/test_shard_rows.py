"""A folder that is continued: which images and texts have a vector, and what has changed."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.shard_folders import MADE_BY, opened, read_file, without_checksums

from mlx_aimv2.errors import InputError
from mlx_aimv2.vectors.files import write
from mlx_aimv2.vectors.manifest import MANIFEST
from mlx_aimv2.vectors.reading import read_vectors
from mlx_aimv2.vectors.shard_folder import ShardFolder


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
    names = [str(name) for name in names]
    left = [names[k] for k in shards.index.remaining(names)]
    for name in left:
        if name not in broken:
            shards.add(name, vector_of(name))
    shards.close()
    return left


def read_both_ways(folder: Path) -> dict[str, float]:
    """The first number of each vector by its name, the same in all shard files and by the manifest."""
    everything = {}
    for shard in sorted(folder.glob("embeddings*")):
        names, vectors, _ = read_file(shard)
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
    assert shards.index.remaining([str(path) for path in five]) == [1] and shards.index.changed == 1
    shards.close(interrupted=True)
    assert read_both_ways(tmp_path / "v")[str(five[1])] == 1
    assert run(tmp_path / "v", five) == [str(five[1])]


def test_an_image_that_changes_while_it_is_embedded_is_embedded_again(tmp_path, images, five):
    shards = ShardFolder(tmp_path / "v", MADE_BY)
    left = [str(path) for path in five]
    assert shards.index.remaining(left) == [0, 1, 2, 3, 4]
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
        assert [texts[k] for k in shards.index.remaining(texts)] == left
        for text in left:
            shards.add(text, np.zeros(3, np.float32))
        shards.close()
    assert ShardFolder(tmp_path, MADE_BY).index.gone() == []


def parts_run(folder, names, files):
    """A run over parts of files, and over items without a file; those that it embeds."""
    shards = opened(folder, MADE_BY, 2)
    left = [names[k] for k in shards.index.remaining(names, files)]
    for name in left:
        shards.add(name, np.full(3, len(name), np.float32))
    shards.close()
    return left


def test_the_parts_of_a_file_change_and_go_with_it(tmp_path, images, monkeypatch):
    for number, name in enumerate(("one.tar", "two.tar")):
        images.write(name, number)
    monkeypatch.chdir(images.folder)
    names = ["one.tar/a.jpg", "one.tar/b.jpg", "two.tar/a.jpg", "https://host/a.jpg"]
    files = ["one.tar", "one.tar", "two.tar", None]
    assert parts_run(tmp_path / "v", names, files) == names
    assert parts_run(tmp_path / "v", names, files) == []
    monkeypatch.chdir(tmp_path)
    elsewhere = [f"images/{name}" for name in names[:3]]
    assert parts_run(tmp_path / "v", elsewhere, [f"images/{file}" for file in files[:3]]) == []
    images.write("one.tar", 7, mtime=2_000_000)
    monkeypatch.chdir(images.folder)
    assert parts_run(tmp_path / "v", names, files) == names[:2]
    assert sorted(read_vectors(tmp_path / "v").paths) == sorted(names)
    (images.folder / "two.tar").unlink()
    assert [row.name for row in ShardFolder(tmp_path / "v", MADE_BY).index.gone()] == [names[2]]


def test_a_part_of_a_file_that_changes_while_it_is_read_is_embedded_again(tmp_path, images):
    tar = str(images.write("one.tar", 1))
    shards = ShardFolder(tmp_path / "v", MADE_BY)
    assert shards.index.remaining([f"{tar}/a.jpg"], [tar]) == [0]
    images.write("one.tar", 2, mtime=2_000_000)
    shards.add(f"{tar}/a.jpg", np.ones(3, np.float32))
    shards.close()
    assert parts_run(tmp_path / "v", [f"{tar}/a.jpg"], [tar]) == [f"{tar}/a.jpg"]


def as_an_older_version(folder: Path) -> None:
    """Rewrite the folder with `.npz` shards without marks of files, and a manifest without checksums."""
    without_checksums(folder)
    for shard in folder.glob("embeddings*"):
        names, vectors, note = read_file(shard)
        write(shard.with_suffix(".npz"), names, vectors, note)
        shard.unlink()
    manifest = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(manifest.replace(".safetensors", ".npz"))


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
    assert done == [*itertools.chain(*each), ("unlink", "embeddings-00000.safetensors")]
