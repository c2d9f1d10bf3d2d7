"""From names to images: files, folders, patterns."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlx_aimv2.errors import ImageError, InputError
from mlx_aimv2.processing.decode import decode_image
from mlx_aimv2.sources.find import find_sources
from mlx_aimv2.sources.paths import find_images


def expand(names: list[str], *exclude: str) -> list[str]:
    return list(find_images(names, exclude).images)


TREE = (
    "b.jpg",
    "a.PNG",
    "notes.txt",
    ".hidden.jpg",
    "sub/z.heic",
    "sub/deep/y.webp",
    "sub/.cache/thumbnail.jpg",
    "empty/readme.md",
)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images and other things, which is also the working directory."""
    for name in TREE:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["b.jpg"], ["b.jpg"]),
        (["notes.txt"], ["notes.txt"]),  # a file is taken whatever it is called
        ([".hidden.jpg"], [".hidden.jpg"]),
        (["b.jpg", "a.PNG"], ["b.jpg", "a.PNG"]),  # the order given, not the alphabet's
        (["."], ["a.PNG", "b.jpg", "sub/z.heic", "sub/deep/y.webp"]),
        (["sub/"], ["sub/z.heic", "sub/deep/y.webp"]),
        (["sub", "b.jpg"], ["sub/z.heic", "sub/deep/y.webp", "b.jpg"]),
        (["*.jpg"], ["b.jpg"]),
        (["*"], ["a.PNG", "b.jpg"]),
        (["?.[jP]*"], ["a.PNG", "b.jpg"]),
        (["sub/**/*.webp"], ["sub/deep/y.webp"]),
        (["**"], ["a.PNG", "b.jpg", "sub/deep/y.webp", "sub/z.heic"]),
        (["b.jpg", "*.jpg", "b.jpg"], ["b.jpg", "b.jpg"]),  # as often as it is named itself
        (["./b.jpg", "b.jpg"], ["b.jpg", "b.jpg"]),
        (
            ["*.jpg", "."],
            ["b.jpg", "a.PNG", "sub/z.heic", "sub/deep/y.webp"],
        ),  # patterns and folders add what is new
        (["b.jpg", "."], ["b.jpg", "a.PNG", "sub/z.heic", "sub/deep/y.webp"]),
        (["missing.jpg", "b.jpg"], ["missing.jpg", "b.jpg"]),  # named when it is opened
        (["~draft.jpg"], ["~draft.jpg"]),
        (["~nobody-of-this-name/a.jpg"], ["~nobody-of-this-name/a.jpg"]),
        ([], []),
    ],
    ids=str,
)
def test_names_stand_for_these_images(tree: Path, names: list[str], found: list[str]) -> None:
    assert expand(names) == found


@pytest.mark.parametrize("name", ["holiday[1].jpg", "what?.jpg", "stars*.jpg"])
def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tree: Path, name: str) -> None:
    (tree / name).touch()
    (tree / "holiday1.jpg").touch()
    assert expand([name]) == [name]


def test_a_folder_whose_name_looks_like_a_pattern_is_that_folder(tree: Path) -> None:
    (tree / "trip [2024]").mkdir()
    (tree / "trip [2024]" / "x.jpg").touch()
    assert expand(["trip [2024]"]) == ["trip [2024]/x.jpg"]


def test_the_order_is_the_names_and_not_the_disks(tmp_path: Path) -> None:
    names = [f"{k:02}" for k in (7, 3, 11, 0, 9, 5, 1, 10, 4, 8, 2, 6)]
    for name in names:
        (tmp_path / name).mkdir()
        for image in ("c.jpg", "a.jpg", "b.jpg"):
            (tmp_path / name / image).touch()
    expected = [str(tmp_path / name / f"{x}.jpg") for name in sorted(names) for x in "abc"]
    assert expand([str(tmp_path)]) == expected


def test_a_hidden_folder_is_searched_when_it_is_named(tree: Path) -> None:
    assert expand(["sub/.cache"]) == ["sub/.cache/thumbnail.jpg"]


def test_a_name_too_long_for_a_file_is_passed_on(tree: Path) -> None:
    assert expand(["x" * 5000]) == ["x" * 5000]


def test_home_is_filled_in(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tree))
    assert expand(["~/b.jpg", "~/*.PNG"]) == [str(tree / "b.jpg"), str(tree / "a.PNG")]


def test_links_to_folders_are_followed_and_never_in_circles(tree: Path) -> None:
    (tree / "elsewhere").mkdir()
    (tree / "elsewhere" / "c.jpg").touch()
    (tree / "elsewhere" / "back").symlink_to(tree / "sub")
    (tree / "sub" / "loop").symlink_to(tree)
    (tree / "sub" / "more").symlink_to(tree / "elsewhere")
    expected = ["sub/z.heic", "sub/deep/y.webp", "sub/more/c.jpg"]
    assert expand(["sub"]) == expected
    assert sorted(expand(["sub/**"])) == sorted(expand(["sub/**/*.*"])) == sorted(expected)


def test_links_to_images_are_images(tree: Path) -> None:
    (tree / "sub" / "a-link.jpg").symlink_to(tree / "b.jpg")
    assert "sub/a-link.jpg" in expand(["sub"])


def test_a_link_to_a_folder_that_is_named_itself_is_searched(tree: Path) -> None:
    (tree / "album").symlink_to(tree / "sub")
    assert expand(["album"]) == ["album/z.heic", "album/deep/y.webp"]


def test_a_folder_called_like_an_image_is_no_match_of_a_pattern(tree: Path) -> None:
    (tree / "folder.jpg").mkdir()
    assert expand(["*.jpg"]) == ["b.jpg"]


def test_a_name_without_images_beside_others_is_explained(tree: Path) -> None:
    scan = find_images(["b.jpg", "empty", "*.tiff"])
    assert scan.images == ("b.jpg", "empty", "*.tiff")  # so that they fail when they are opened
    assert scan.notices() == [
        "no images in the folder empty: it holds 1 file: 1 other (.md)",
        "no images match *.tiff",
        "left out 1 file: 1 other (.md)",
    ]


def test_names_that_no_system_takes_are_images_that_fail(tree: Path) -> None:
    Path("~draft.tar").touch()
    names = ["~draft.jpg", "~draft.tar", "a" * 300 + ".jpg", "a" * 300 + ".tar"]
    found = find_sources([*names, "b.jpg"])
    assert found.names == [*names, "b.jpg"]
    for image in found.images[:-1]:
        with pytest.raises((ImageError, OSError)):
            decode_image(image)
    with pytest.raises(InputError, match="no images match aaa"):
        find_sources(["a" * 300 + "[1].jpg"])


def test_a_pattern_leaves_out_what_a_folder_does(tree: Path) -> None:
    for name in ("sub/@eaDir/t.jpg", "sub/raw.raw", "sub/deep/@eaDir/u.jpg"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    for pattern in ("sub/**/*.jpg", "su*/@eaDir/*.jpg"):
        with pytest.raises(InputError, match=r"no images match .*, only .*: @eaDir"):
            expand([pattern])
    assert expand(["sub/@eaDir/*.jpg"]) == ["sub/@eaDir/t.jpg"]  # it is named itself
    scan = find_images(["sub/*"])
    assert scan.images == ("sub/z.heic",) and scan.ignored.summary() == "1 file: 1 .raw (camera raw)"


def test_what_is_excluded_is_left_out_but_not_where_it_is_named_itself(tree: Path) -> None:
    assert expand([".", "b.jpg"], "*.jpg", "sub/deep") == ["a.PNG", "sub/z.heic", "b.jpg"]
    assert expand(["*"], "b.*") == ["a.PNG"]
    assert expand(["**"], "deep/") == ["a.PNG", "b.jpg", "sub/z.heic"]
    with pytest.raises(InputError, match=r"no images in the folder sub: it holds .*1 excluded"):
        expand(["sub"], "*.heic", "deep")
    with pytest.raises(InputError, match="--exclude needs a pattern, such as"):
        expand(["."], "/")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", r"no images in the folder empty: it holds 1 file: 1 other \(\.md\)"),
        ("*.tiff", r"no images match \*\.tiff"),
        ("*.txt", r"no images match \*\.txt, only 1 file: 1 other \(\.txt\)"),
        ("nowhere/*.jpg", r"no images match nowhere/\*\.jpg"),
        ("holiday[1].jpg", r"no images match holiday\[1\]\.jpg"),
        ("", "an empty name is no image"),
    ],
)
def test_what_stands_for_no_image_is_refused(tree: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        expand([name])


def test_a_folder_that_cannot_be_read_is_an_item_that_fails(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def guarded(path: str):  # type: ignore[no-untyped-def]
        if str(path) == "sub/deep":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert expand(["sub"]) == ["sub/z.heic", "sub/deep"]


def test_addresses_are_refused_where_only_files_are_read() -> None:
    with pytest.raises(InputError) as caught:
        find_images(["https://me:secret@a.example/x.jpg?y=[1]"])
    assert str(caught.value) == (
        "https://a.example/x.jpg?y=[1] is not a file: download it first, only embed and classify read addresses"
    )
    assert find_images(["https://a.example/x?y"], addresses=True).images == ("https://a.example/x?y",)
