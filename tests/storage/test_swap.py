"""Files that are replaced together are all old or all new, whatever fails."""

from __future__ import annotations

import pytest

from mlx_aimv2.errors import OutputError
from mlx_aimv2.storage.swap import finish_swap, replacing_together, swapped

NAMES = ("a.txt", "b.txt", "last.json")


def write(folder, words="new"):
    with replacing_together(folder / ".swap", "last.json") as partial:
        for name in NAMES:
            (partial / name).write_text(f"{words} {name}")


def content(folder):
    """What a reader finds, which knows of the swap; None where the last file is missing."""
    places = [swapped(folder / name, folder / ".swap") for name in NAMES]
    return [path.read_text().split()[0] for path in places] if places[-1].exists() else None


@pytest.mark.parametrize("lasting", [False, True], ids=["failed", "killed"])
@pytest.mark.parametrize("old", [False, True])
def test_all_files_are_old_or_all_are_new_whatever_fails(tmp_path, faults, lasting, old):
    def begin(folder):
        folder.mkdir()
        if old:
            write(folder, "old")

    def check(folder, step):
        assert content(folder) in ([["old"] * 3 if old else None, ["new"] * 3])
        in_place = [(folder / name).read_text().split()[0] for name in NAMES if (folder / name).exists()]
        assert len(in_place) < 3 or len(set(in_place)) == 1, (
            "without the swap nobody takes a mixture for whole"
        )
        before = content(folder)
        finish_swap(folder / ".swap", "last.json")
        assert content(folder) == before
        write(folder, "later")
        assert content(folder) == ["later"] * 3 and not (folder / ".swap").exists()

    assert faults.everywhere(tmp_path, write, check, begin, lasting) >= 15


def test_the_next_writer_completes_what_a_killed_run_began(tmp_path):
    (tmp_path / ".swap").mkdir()
    for name in NAMES:
        (tmp_path / ".swap" / name).write_text(f"killed {name}")
    with pytest.raises(OutputError, match="no room"), replacing_together(tmp_path / ".swap", "last.json"):
        assert content(tmp_path) == ["killed"] * 3
        raise OutputError("no room")
    assert content(tmp_path) == ["killed"] * 3 and not (tmp_path / ".swap").exists()


def test_the_other_names_are_on_disk_before_the_last(tmp_path, faults):
    with faults.watch() as steps:
        write(tmp_path)
    moves = [(step, path.name) for step, path in steps if step in ("replace", "sync", "rename")]
    at = moves.index(("replace", "last.json"))
    assert moves[at - 1] == ("sync", tmp_path.name) and moves[at + 1] == ("sync", tmp_path.name)
    assert sorted(moves[at - 3 : at - 1]) == [("replace", "a.txt"), ("replace", "b.txt")]


def test_a_failure_names_the_place_that_was_meant(tmp_path):
    with pytest.raises(OutputError) as caught, replacing_together(tmp_path / ".swap", "last.json") as partial:
        raise OutputError.writing(partial / "a.txt", OSError()) from OSError(28, "No space left on device")
    assert str(caught.value) == f"{tmp_path}/a.txt cannot be written: No space left on device"
    assert list(tmp_path.iterdir()) == []
