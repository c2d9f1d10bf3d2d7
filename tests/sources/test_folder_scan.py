"""The search of folders: what comes, in which order, and an account of all the rest."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlx_aimv2.processing import optional_formats
from mlx_aimv2.sources.folder_scan import Rules, Scan, identity, scan_folder
from mlx_aimv2.sources.ignored import own_files


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(folder: Path, rules: Rules | None = None) -> tuple[list[str], str]:
    """The images below a folder, and what is left out."""
    scan = scan_folder(folder, rules)
    return [os.path.relpath(image, folder) for image in scan.images], scan.ignored.summary()


def test_camera_raw_without_its_package_is_counted_with_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched(tmp_path, "a.jpg", "b.dng", "c.nef", "d.NEF", "e.jxl")
    monkeypatch.setattr(optional_formats, "_is_installed", lambda module: False)
    summary = (
        "4 files: 2 .nef (camera raw, pip install 'mlx-aimv2[raw]'), 1 .dng (camera raw, pip install"
        " 'mlx-aimv2[raw]'), 1 .jxl (JPEG XL, pip install 'mlx-aimv2[jxl]')"
    )
    assert found(tmp_path) == (["a.jpg"], summary)
    monkeypatch.setattr(optional_formats, "_is_installed", lambda module: True)
    assert found(tmp_path) == (["a.jpg", "b.dng", "c.nef", "d.NEF", "e.jxl"], "")


def test_everything_is_accounted_for(tmp_path: Path) -> None:
    touched(
        tmp_path, "a.jpg", *(f"{k}.RAW" for k in range(12)), *(f"{k}.tga" for k in range(3)), "x/b.gpr", "x/c.jxr",
        ".c.jpg", "._a.jpg", ".DS_Store", "clip.mov", "photos.zip", "a.xmp", "b.xmp", "notes.txt", "README",
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "x/@eaDir/t.jpg", ".git/t.jpg",
    )  # fmt: skip
    words = (
        "26 files: 12 .raw (camera raw), 3 .tga (no decoder), 3 hidden, 1 .gpr (camera raw), 1 .jxr (no decoder),"
        " 1 .mov (video), 1 .zip (archive), 4 other (.xmp, no ending, .txt); 3 folders: @eaDir (2), .git"
    )
    assert found(tmp_path) == (["a.jpg"], words)
    scan = scan_folder(tmp_path)
    assert (
        sum(scan.ignored.files.values()) + len(scan.images) == 27
    )  # every file that no skipped folder holds


@pytest.mark.parametrize(
    "name",
    ["@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "RECYCLER", "lost+found", "__MACOSX", ".Trashes", "#snapshot",
     ".thumbnails", "node_modules", ".@__thumb", "@tmp", "System Volume Information", "2024 Previews.lrdata",
     "a.LRDATA", "site-packages", "~snapshot"],
)  # fmt: skip
def test_folders_of_systems_and_programs_are_left_out_unless_named(tmp_path: Path, name: str) -> None:
    touched(tmp_path, f"{name}/deep/a.jpg", "b.jpg")
    assert found(tmp_path) == (["b.jpg"], f"1 folder: {name}")
    assert found(tmp_path / name)[0] == ["deep/a.jpg"]
    assert found(tmp_path, Rules())[0] == ["b.jpg"]


@pytest.mark.parametrize(
    ("library", "originals"),
    [
        ("Photos Library.photoslibrary", "originals"),
        ("iPhoto.photolibrary", "Masters"),
        ("a.aplibrary", "Masters"),
    ],
)
def test_of_a_photo_library_only_the_originals_come(tmp_path: Path, library: str, originals: str) -> None:
    touched(
        tmp_path / library, f"{originals}/0/0A.heic", "resources/derivatives/0/0A_1.jpeg", "Thumbnails/x.jpg",
        "database/faces.jpg", "scopes/cloudsharing/y.jpg",
    )  # fmt: skip
    images, words = found(tmp_path)
    assert images == [f"{library}/{originals}/0/0A.heic"]
    assert words == "4 folders: Thumbnails, database, resources, scopes"
    assert found(tmp_path / library)[0] == [f"{originals}/0/0A.heic"]
    (tmp_path / "link").symlink_to(tmp_path / library)
    assert found(tmp_path)[0] == images


def test_a_linked_folder_is_searched_once_by_its_own_name(tmp_path: Path) -> None:
    touched(tmp_path / "data", "z/a.jpg", "z/sub/b.jpg")
    (tmp_path / "data" / "a-link").symlink_to(tmp_path / "data" / "z")
    (tmp_path / "data" / "b-link").symlink_to("z/sub")
    (tmp_path / "data" / "z" / "up").symlink_to("..")
    images, words = found(tmp_path / "data")
    assert images == ["z/a.jpg", "z/sub/b.jpg"]
    assert words == "3 links to folders that are searched anyway: a-link, b-link, z/up"


def test_links_out_of_the_folder_come_in_their_place_and_once(tmp_path: Path) -> None:
    touched(tmp_path / "out", "c.jpg", "deep/d.jpg")
    touched(tmp_path / "data", "a.jpg", "z/e.jpg")
    (tmp_path / "out" / "round").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "m").symlink_to(tmp_path / "out")
    (tmp_path / "data" / "n").symlink_to(tmp_path / "out" / "deep")
    images, words = found(tmp_path / "data")
    assert images == ["a.jpg", "m/c.jpg", "m/deep/d.jpg", "z/e.jpg"]
    assert words == "2 links to folders that are searched anyway: m/round, n"


def test_of_two_links_to_a_folder_the_shorter_path_counts(tmp_path: Path) -> None:
    touched(tmp_path / "out", "c.jpg")
    touched(tmp_path / "data", "a/deep/b.jpg")
    (tmp_path / "data" / "a" / "deep" / "link").symlink_to(tmp_path / "out")
    (tmp_path / "data" / "z").symlink_to(tmp_path / "out")
    assert found(tmp_path / "data") == (
        ["a/deep/b.jpg", "z/c.jpg"],
        "1 link to a folder that is searched anyway: a/deep/link",
    )


def test_folders_of_file_systems_without_numbers_are_all_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched(tmp_path, "a/b.jpg", "c/d/e.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self: SimpleNamespace(st_dev=stat(self).st_dev, st_ino=0))
    assert found(tmp_path)[0] == ["a/b.jpg", "c/d/e.jpg"]
    assert identity(tmp_path / "a") == identity(tmp_path / "link") != identity(tmp_path / "c")
    monkeypatch.setattr("mlx_aimv2.sources.folder_scan.identity", lambda path: 1)  # or with the same for all
    assert found(tmp_path)[0] == ["a/b.jpg", "c/d/e.jpg"]


def test_a_hidden_folder_that_a_link_shows_is_searched(tmp_path: Path) -> None:
    touched(tmp_path, ".store/a.jpg")
    (tmp_path / "images").symlink_to(".store")
    assert found(tmp_path) == (["images/a.jpg"], "1 folder: .store")


def test_many_loops_end(tmp_path: Path) -> None:
    touched(tmp_path, "a.jpg")
    for k in range(40):
        (tmp_path / f"loop{k}").symlink_to(tmp_path)
    images, words = found(tmp_path)
    assert images == ["a.jpg"] and words.startswith("40 links to folders that are searched anyway: loop0, ")
    assert words.endswith(", 36 more")


def test_broken_links_and_special_files(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "gone.txt").symlink_to("nowhere")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)  # the name of a socket may not be long
        server.bind("s.jpg")
        os.chdir(here)
    images, words = found(tmp_path)
    assert images == ["gone.jpg", "self.jpg"]  # named when they are opened
    assert words == "3 files: 2 special file, 1 broken link"


def test_links_to_devices_and_pipes_are_special_files(tmp_path: Path) -> None:
    touched(tmp_path, "a/a.jpg")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a/zeros.jpg").symlink_to("/dev/zero")  # which has no end
    (tmp_path / "a/pipe.jpg").symlink_to("../pipe")
    (tmp_path / "a/gone.jpg").symlink_to("nowhere")
    images, words = found(tmp_path / "a")
    assert images == ["a.jpg", "gone.jpg"]
    assert words == "2 files: 2 special file"


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touched(tmp_path, "a/b.jpg", "shut/c.jpg")
    scandir = os.scandir

    def guarded(path: str):  # type: ignore[no-untyped-def]
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    scan = scan_folder(tmp_path)
    assert scan.images == (str(tmp_path / "a" / "b.jpg"),)
    assert scan.unreadable == ((str(tmp_path / "shut"), "Permission denied"),)
    assert scan_folder(tmp_path / "shut") == Scan(unreadable=((str(tmp_path / "shut"), "Permission denied"),))


def test_patterns_exclude_names_and_paths(tmp_path: Path) -> None:
    touched(tmp_path, "a.jpg", "thumb_b.jpg", "raw/c.jpg", "x/raw/d.jpg", "x/y/e.jpg", "x/f.png")
    images, words = found(tmp_path, Rules(exclude=("thumb_*", "x/y/*", "raw/")))
    assert images == ["a.jpg", "x/f.png"]
    assert words == "2 files: 2 excluded; 2 excluded folders: raw, x/raw"
    assert found(tmp_path, Rules(exclude=("./x",)))[0] == ["a.jpg", "thumb_b.jpg", "raw/c.jpg"]


def test_other_files_may_be_asked_for(tmp_path: Path) -> None:
    touched(tmp_path, "b/a.TXT", "a.txt", "a.jpg", "@eaDir/b.txt", "a.json")
    scan = scan_folder(tmp_path, Rules(also=frozenset({".txt"})))
    assert scan.others == (str(tmp_path / "a.txt"), str(tmp_path / "b/a.TXT"))
    assert scan.ignored.files == {("other", ".json"): 1}
    assert scan.folders == ("b",)


OURS = {
    "adapter_config.json": {"peft_type": "LORA"},
    "task.json": {"format": 1, "base": {}},
    "splits.json": {"train": {}, "val": {}, "files": {}},
    "manifest.json": {"fingerprint": {}, "shards": []},
}


@pytest.mark.parametrize("name", OURS)
def test_what_this_program_wrote_is_left_out(tmp_path: Path, name: str) -> None:
    touched(tmp_path, "cat/a.jpg", "run/report/confusion.png")
    (tmp_path / "run" / name).write_text(json.dumps(OURS[name]))
    assert found(tmp_path) == (["cat/a.jpg"], "1 folder that mlx-aimv2 wrote: run")
    assert found(tmp_path / "run")[0] == ["report/confusion.png"]  # it is named itself
    (tmp_path / "run" / name).write_text('{"title": "somebody\'s own"}')
    assert found(tmp_path)[0] == ["cat/a.jpg", "run/report/confusion.png"]


def test_a_checkpoint_and_a_tour_are_left_out(tmp_path: Path) -> None:
    touched(tmp_path, "cat/a.jpg", "mlx_model/model.safetensors", "mlx_model/assets/x.png", "web/config.json")
    touched(tmp_path, "web/x.png", "demo-output/contact-sheet.png", "demo-output/images/00-dog.png")
    touched(tmp_path, "demo-output/labels.txt", "demo-output/vectors.npz")
    for name in ("mlx_model", "web"):
        (tmp_path / name / "config.json").write_text('{"model_type": "aimv2"}')
    images, words = found(tmp_path)
    assert images == ["cat/a.jpg", "web/x.png"]
    assert words == "1 file: 1 other (.json); 2 folders that mlx-aimv2 wrote: demo-output, mlx_model"


def test_plots_of_a_report_are_left_out_among_other_images(tmp_path: Path) -> None:
    touched(tmp_path, "confusion.png", "calibration.png", "a.jpg")
    assert len(found(tmp_path)[0]) == 3
    (tmp_path / "evaluation.json").write_text('{"mistakes": [], "skipped": []}')
    assert found(tmp_path) == (["a.jpg"], "3 files: 2 written by mlx-aimv2, 1 other (.json)")
    touched(tmp_path, "report/confusion.png", "report/data.json")
    (tmp_path / "report" / "evaluation.json").write_text('{"mistakes": [], "skipped": []}')
    assert found(tmp_path)[1].endswith("1 folder that mlx-aimv2 wrote: report")
    (tmp_path / "evaluation.json").write_text("damaged")
    assert own_files(str(tmp_path), {"evaluation.json", "confusion.png"}) == frozenset()


def test_a_folder_may_be_avoided(tmp_path: Path) -> None:
    touched(tmp_path, "cat/a.jpg", "adapters/x.png")
    (tmp_path / "link").symlink_to(tmp_path / "adapters")
    rules = Rules(avoid=frozenset({identity(tmp_path / "adapters")}))
    assert found(tmp_path, rules) == (["cat/a.jpg"], "2 folders that mlx-aimv2 wrote: adapters, link")
