import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_aimv2.errors import ExistsError, InputError, OutputError
from mlx_aimv2.storage import atomic
from mlx_aimv2.storage.atomic import new_folder, refuse_existing, replacing

needs_permissions = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="permissions do not bind root"
)


def test_a_file_appears_when_all_is_well(tmp_path):
    target = tmp_path / "out.json"
    with replacing(target) as partial:
        partial.write_text("new")
        assert partial.parent == tmp_path and not target.exists()
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "out.json"
    target.write_text("old")
    with replacing(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "out.json"
    target.write_text("old")
    with pytest.raises(error), replacing(target) as partial:
        partial.write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_text() == "old"


def test_a_missing_folder_is_found_before_the_work(tmp_path):
    target = tmp_path / "missing" / "out.json"
    with (
        pytest.raises(OutputError, match=r"out\.json cannot be written: No such file or directory"),
        replacing(target),
    ):
        pytest.fail("the work was begun")


def test_a_full_disk_is_an_output_error(tmp_path):
    with (
        pytest.raises(OutputError, match=r"out\.json cannot be written: No space left on device"),
        replacing(tmp_path / "out.json"),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_an_output_error_inside_keeps_its_message(tmp_path):
    with pytest.raises(OutputError, match=r"^inner$"), replacing(tmp_path / "out.json"):
        raise OutputError("inner")


def test_a_folder_where_the_file_should_be_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="out cannot be written"), replacing(tmp_path / "out") as partial:
        partial.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@needs_permissions
def test_a_file_in_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"), replacing(tmp_path / "out.json"):
            pass
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_appears_when_all_is_well(tmp_path):
    target = tmp_path / "deep" / "model"
    with new_folder(target) as partial:
        (partial / "sub").mkdir()
        (partial / "sub" / "a.txt").write_text("a")
        assert not target.exists()
    assert (target / "sub" / "a.txt").read_text() == "a"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_no_folder(tmp_path, error):
    with pytest.raises(error), new_folder(tmp_path / "model") as partial:
        (partial / "a.txt").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_existing_target_is_refused_and_untouched(tmp_path, kind):
    target = tmp_path / "model"
    target.mkdir() if kind == "folder" else target.write_text("mine")
    with (
        pytest.raises(OutputError, match="model exists already: name another folder, or remove it"),
        new_folder(target),
    ):
        pytest.fail("the work was begun")
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="model cannot be written: Not a directory"),
        new_folder(tmp_path / "file" / "model"),
    ):
        pytest.fail("the work was begun")


def test_a_target_that_appears_meanwhile_is_not_lost(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(OutputError, match="model exists already"), new_folder(target):
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    assert (target / "mine.txt").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [target]


@needs_permissions
def test_a_folder_in_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"), new_folder(tmp_path / "model"):
            pass
    finally:
        tmp_path.chmod(0o700)


def test_files_are_flushed_before_they_get_their_name(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(atomic.os, "fsync", lambda descriptor: flushed.append((tmp_path / "out").exists()))
    with replacing(tmp_path / "out") as partial:
        partial.write_text("a")
    assert flushed == [False, True]  # the file, then the folder with its name


def leftover(folder, name="out"):
    return folder / f".{name}.0a1b2c3d4e.partial"


def use(path, kind):
    """Write to ``path`` as a run that succeeds."""
    with (new_folder if kind == "folder" else replacing)(path) as partial:
        (partial / "a" if kind == "folder" else partial).touch()


def make(path, kind):
    """What a run leaves that is killed while it writes."""
    path.mkdir() if kind == "folder" else path.touch()
    (path / "model.safetensors" if kind == "folder" else path).write_text("half")


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path, kind):
    make(leftover(tmp_path), kind)
    use(tmp_path / "out", kind)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


KILLED = """
import os, pathlib, sys
from mlx_aimv2.storage.atomic import new_folder, replacing
with (new_folder if sys.argv[2] == "folder" else replacing)(pathlib.Path(sys.argv[1])) as partial:
    print(partial, flush=True)
    sys.stdin.readline()
    os._exit(9)
"""


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_lock_lasts_as_long_as_its_process_whatever_its_number(tmp_path, monkeypatch, kind):
    command = [sys.executable, "-c", KILLED, tmp_path / "out", kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        partial = Path(run.stdout.readline().strip())
        monkeypatch.setattr(os, "getpid", lambda: run.pid)  # as in two containers, where each is number 1
        use(tmp_path / "out", kind)
        assert partial.exists()
        run.communicate("\n")
    assert partial.exists()
    (tmp_path / "out").rename(tmp_path / "first")
    use(tmp_path / "out", kind)
    assert not partial.exists()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_without_locks_nothing_is_removed(tmp_path, monkeypatch, kind):
    def refuse(descriptor, flags):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(atomic.fcntl, "flock", refuse)
    make(leftover(tmp_path), kind)
    use(tmp_path / "out", kind)
    assert leftover(tmp_path).exists() and (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    [".other.0a1b2c3d4e.partial", ".out.0a1b2c.partial", ".out.0a1b2c3d4x.partial", ".out.partial"],
    ids=["other", "short", "letters", "mine"],
)
def test_what_no_killed_run_left_stays(tmp_path, name):
    (tmp_path / name).mkdir()
    use(tmp_path / "out", "folder")
    assert (tmp_path / name).is_dir()


def test_links_and_pipes_of_such_a_name_stay_and_nothing_waits_for_them(tmp_path):
    (tmp_path / "mine").mkdir()
    leftover(tmp_path).symlink_to("mine")
    os.mkfifo(leftover(tmp_path, "file"))
    use(tmp_path / "out", "folder")
    use(tmp_path / "file", "file")
    assert leftover(tmp_path).is_symlink() and (tmp_path / "mine").is_dir()
    assert leftover(tmp_path, "file").is_fifo()


def test_a_partial_folder_that_is_locked_stays(tmp_path):
    left = leftover(tmp_path)
    left.mkdir()
    descriptor = os.open(left, os.O_RDONLY)
    assert atomic._lock(descriptor)
    use(tmp_path / "out", "folder")
    assert left.is_dir()
    os.close(descriptor)
    use(tmp_path / "other", "folder")
    assert left.is_dir(), "of another target"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_another_run_removes_before_it_is_locked_is_made_again(tmp_path, monkeypatch, kind):
    target, swept = tmp_path / "out", []
    lock = atomic._lock

    def late(descriptor, flags=0):
        if not flags and len(swept) < 2:  # a writer's lock, which another run comes before
            swept.append(descriptor)
            atomic._sweep(target)
        return lock(descriptor, flags)

    monkeypatch.setattr(atomic, "_lock", late)
    use(target, kind)
    assert len(swept) == 2 and list(tmp_path.iterdir()) == [target]


def test_two_runs_at_once_do_not_disturb_each_other(tmp_path):
    with new_folder(tmp_path / "out") as first:
        (first / "a").write_text("first")
        with pytest.raises(RuntimeError, match="given up"), new_folder(tmp_path / "out") as second:
            assert second != first
            raise RuntimeError("given up")
    assert (tmp_path / "out" / "a").read_text() == "first"


def test_a_long_name_is_written_and_one_too_long_refused(tmp_path):
    with new_folder(tmp_path / ("n" * 250)):
        pass
    assert (tmp_path / ("n" * 250)).is_dir()
    with (
        pytest.raises(OutputError, match="cannot be written: File name too long"),
        new_folder(tmp_path / ("n" * 300)),
    ):
        pass


def test_a_link_to_nowhere_is_in_the_way(tmp_path):
    (tmp_path / "out").symlink_to("nowhere")
    with pytest.raises(OutputError, match="out exists already"), new_folder(tmp_path / "out"):
        pytest.fail("the work was begun")


# --- links


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("disk/real.json")
    with replacing(tmp_path / "link.json") as partial:
        partial.write_text("new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "disk" / "real.json").read_text() == "new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["disk", "link.json", "real.json"]


def test_a_link_to_a_file_that_is_not_there_yet_makes_that_file(tmp_path):
    (tmp_path / "link").symlink_to("real")
    with replacing(tmp_path / "link") as partial:
        partial.write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def test_a_link_to_a_folder_stays_when_the_folder_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with new_folder(tmp_path / "link", replace=True) as partial:
        (partial / "a").write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "a").read_text() == "new"


# --- what exists


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling"])
def test_what_exists_is_refused_as_wrong_usage(tmp_path, kind):
    path = tmp_path / "out"
    if kind == "file":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere" if kind == "dangling" else tmp_path)
    message = "out exists already: name another, or replace it with force=True"
    with pytest.raises(ExistsError, match=message) as caught:
        refuse_existing(tmp_path / "new", path)
    assert isinstance(caught.value, InputError) and isinstance(caught.value, OutputError)
    refuse_existing(path, force=True)


# --- a folder in the place of another


@pytest.fixture(params=[True, False], ids=["in one step", "in two steps"])
def exchange(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(atomic, "_exchange", lambda *_: False)


def test_a_folder_takes_the_place_of_another(tmp_path, exchange):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with new_folder(tmp_path / "out", replace=True) as partial:
        (partial / "new").touch()
        assert (tmp_path / "out" / "old").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]


def test_a_folder_that_may_replace_need_not_do_so(tmp_path, exchange):
    with new_folder(tmp_path / "out", replace=True) as partial:
        (partial / "new").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_the_folder_that_was_to_be_replaced(tmp_path, exchange):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(ValueError, match="broken"), new_folder(tmp_path / "out", replace=True) as partial:
        (partial / "new").touch()
        raise ValueError("broken")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["old"]


# --- failures at every step


def content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def fill(folder, words):
    (folder / "sub").mkdir()
    for name in ("a", "sub/b"):
        (folder / name).write_text(words)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("lasting", [False, True], ids=["failed", "killed"])
def test_a_folder_is_the_old_or_the_new_one_whatever_fails(tmp_path, faults, exchange, replace, lasting):
    old, new = ({"a": words, "sub/b": words} for words in ("old", "new"))

    def write(folder):
        with new_folder(folder, replace=replace) as partial:
            fill(partial, "new")

    def check(folder, step):
        parent = folder.parent
        if not folder.exists() and replace:  # in two steps, killed between them
            (aside,) = parent.glob("*.old")
            assert lasting and content(aside) == old
            return
        allowed = [old if replace else None, new]
        assert (content(folder) if folder.exists() else None) in allowed
        left = [path.name for path in parent.iterdir() if path.name != "out"]
        assert lasting or len(left) <= 1  # what could not be removed; the next run does it
        assert lasting or all(name.endswith((".partial", ".old")) for name in left)

    def begin(folder):
        if replace:
            folder.mkdir()
            fill(folder, "old")

    assert faults.everywhere(tmp_path, write, check, begin, lasting) >= 8


@pytest.mark.parametrize("lasting", [False, True], ids=["failed", "killed"])
def test_a_file_is_the_old_or_the_new_one_whatever_fails(tmp_path, faults, lasting):
    def write(path):
        with replacing(path) as partial:
            partial.write_text("new")

    def check(path, step):
        assert path.read_text() in ("old", "new")
        if not lasting:
            assert [each.name for each in path.parent.iterdir()] == ["out"]

    assert faults.everywhere(tmp_path, write, check, lambda path: path.write_text("old"), lasting) >= 5


def test_everything_in_a_new_folder_is_on_disk_before_its_name(tmp_path, faults):
    with faults.watch() as steps, new_folder(tmp_path / "out") as partial:
        fill(partial, "new")
    named = [(step, path.name) for step, path in steps if step in ("sync", "rename", "replace")]
    assert named[:3] == [("sync", "b"), ("sync", "sub"), ("sync", "a")]
    assert [step for step, _ in named] == ["sync"] * 4 + ["rename", "sync"]
    assert named[3][1].endswith(".partial") and named[-1] == ("sync", tmp_path.name)
