"""Files of boxes: their forms, refusals, and which images they belong to; tiles."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from mlx_aimv2.errors import ImageError, InputError
from mlx_aimv2.processing.decode import DecodeOptions, decode_image
from mlx_aimv2.processing.source_image import SourceImage
from mlx_aimv2.sources.boxes import cropped, read_boxes
from mlx_aimv2.sources.find import Found, find_sources
from mlx_aimv2.sources.options import CropOptions


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images, and the working directory elsewhere."""
    data = tmp_path / "data"
    data.mkdir()
    for number, name in enumerate(("a.png", "b.png")):
        Image.effect_noise((40, 30), 50 + number).convert("RGB").save(data / name)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return data


def written(folder: Path, text: str, name: str = "boxes.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def read(folder: Path, text: str, name: str = "boxes.csv") -> list[tuple[object, ...]]:
    return [tuple(row[:3]) for row in read_boxes(written(folder, text, name))]


def names(file: Path, *images: str) -> list[str]:
    found = find_sources(images) if images else None
    return cropped(found, CropOptions(boxes=file)).found.names


@pytest.mark.parametrize(
    "text",
    [
        "path,left,top,right,bottom\na.png,1,2,11,22\n",
        "left,top,right,bottom,label,Path\n1,2,11,22,dog,a.png\n",
        "image;xmin;ymin;xmax;ymax\na.png;1;2;11;22\n\n",
        "file\tx1\ty1\tx2\ty2\na.png\t1\t2\t11\t22",
        "filename,x,y,width,height\r\na.png,1,2,10,20\r\n",
        "path,x,y,w,h\na.png,1.2,1.7,9.9,20\n",
    ],
)
def test_forms_of_csv(tmp_path, text):
    assert read(tmp_path, text) == [("a.png", (1, 2, 11, 22), "")]


def test_forms_of_json_lines(tmp_path):
    records = [
        {"path": "a.png", "boxes": [[1, 2, 11, 22], [0, 0, 5, 5.4]]},
        {"path": "b.png", "box": [1, 2, 11, 22], "id": 17, "score": 0.5},
        {"path": "b.png", "boxes": [[0, 0, 1, 3], [0, 0, 2, 3]], "ids": ["left", "right"]},
        {"path": "c.png", "x": 1, "y": 2, "width": 10, "height": 20},
        {"path": "d.png", "boxes": []},
    ]
    assert read(tmp_path, "\n".join(map(json.dumps, records)), "boxes.jsonl") == [
        ("a.png", (1, 2, 11, 22), ""),
        ("a.png", (0, 0, 5, 5), ""),
        ("b.png", (1, 2, 11, 22), "17"),
        ("b.png", (0, 0, 1, 3), "left"),
        ("b.png", (0, 0, 2, 3), "right"),
        ("c.png", (1, 2, 11, 22), ""),
    ]


HEADER = "path,left,top,right,bottom,id\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no boxes: begin with path,left,top,right,bottom, or lines such as"),
        (HEADER, "names no boxes: begin with"),
        ("path,label\na.png,dog\n", ", line 1: no box among path, label: begin with path,left,top,"),
        ("left,top,right,bottom\n1,2,3,4\n", ", line 1: no path among left, top, right, bottom: begin with"),
        (HEADER + "a.png,1,2,3\n", ", line 2: 4 fields, but the header has 6"),
        (HEADER + "a.png,1,2,x,4,\n", ", line 2: the box [1, 2, x, 4] has to be four numbers"),
        (
            HEADER + "a.png,1,2,9,9,\n\na.png,nan,2,3,4,\n",
            ", line 4: the box [nan, 2, 3, 4] holds NaN or infinity",
        ),
        (HEADER + "a.png,-1,2,3,4,\n", ", line 2: the box [-1, 2, 3, 4] has a negative edge"),
        (HEADER + "a.png,5,2,3,4,\n", ", line 2: the box [5, 2, 3, 4] ends before it begins"),
        ("path,x,y,w,h\na.png,5,2,x,4\n", ", line 2: x, y, w, h have to be numbers, not 5, 2, x, 4"),
        ("path,x,y,w,h\na.png,5,2,-1,4\n", ", line 2: the box [5.0, 2.0, 4.0, 6.0] ends before it begins"),
        (HEADER + " ,5,2,7,4,\n", ", line 2: no path of an image"),
        (HEADER + 'a.png,1,2,3,4,"x', ", line 2: not valid CSV"),
        (HEADER + "a.png,1,2,3,4,one\nb.png,1,2,3,4,one\n", "line 3: the id 'one' has been given in "),
        (HEADER + "a.png,1,2,3,4,a\x07\n", ", line 2: the id 'a\\x07' holds a control character"),
        (
            HEADER + "a.png,0,0,0.5,1,\nb.png,0.1,0.1,0.9,0.9,\n",
            "no box reaches beyond pixel 1: boxes are in pixels",
        ),
    ],
)
def test_csv_that_is_refused(folder, text, message):
    with pytest.raises(InputError) as error:
        names(written(folder, text))
    assert message in str(error.value)
    assert str(error.value).startswith(f"{folder / 'boxes.csv'}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", 'has to be an object such as {"path": "a.jpg", "box": [10, 20, 110, 220]}'),
        ('{"path": "a.png"}', "no box among path"),
        ('{"path": 3, "box": [1, 2, 3, 4]}', "no path of an image"),
        ('{"path": "a.png", "boxes": 3}', "boxes has to be a list of [left, top, right, bottom]"),
        ('{"path": "a.png", "boxes": [3]}', "the box 3 has to be four numbers"),
        (f'{{"path": "a.png", "box": [1, 2, 3, {10**400}]}}', "the box [1, 2, 3, 1000"),
        (f'{{"path": "a.png", "x": 1, "y": 2, "w": 3, "h": {10**400}}}', "x, y, w, h have to be numbers"),
        ('{"path": "a.png", "box": [1, NaN, 3, 4]}', "the box [1, nan, 3, 4] holds NaN or infinity"),
        (
            '{"path": "a.png", "boxes": [[1, 2, 3, 4]], "ids": []}',
            "ids has to be a list with an id for each of 1 box",
        ),
    ],
)
def test_json_lines_that_are_refused(folder, line, message):
    file = written(folder, '{"path": "a.png", "boxes": []}\n' + line, "boxes.jsonl")
    with pytest.raises(InputError) as error:
        names(file)
    assert str(error.value).startswith(f"{file}, line 2: {message}")


def test_another_file_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"boxes.xml is not a file of boxes: end its name in .csv, .tsv, .txt"
    ):
        names(tmp_path / "boxes.xml")


def test_the_file_names_the_images_and_crops_of_one_follow_each_other(folder):
    file = written(folder, HEADER + "a.png,1,2,9,9,\nb.png,0,0,5,5,\n./a.png,3,3,6,6,mine\n")
    found = cropped(None, CropOptions(boxes=file)).found
    assert found.names == [f"{folder}/a.png[1,2,9,9]", "mine", f"{folder}/b.png[0,0,5,5]"]
    assert found.files == [f"{folder}/a.png"] * 2 + [f"{folder}/b.png"]
    assert decode_image(found.images[1]) == decode_image(folder / "a.png").crop((3, 3, 6, 6))


def test_paths_are_relative_to_the_file_or_to_the_working_directory(folder, monkeypatch):
    (folder / "lists").mkdir()
    file = written(folder / "lists", HEADER + "a.png,1,2,9,9,\n../b.png,1,2,9,9,\n")
    monkeypatch.chdir(folder)
    assert names(file) == ["a.png[1,2,9,9]", f"{folder}/lists/../b.png[1,2,9,9]"]


def test_a_missing_image_fails_and_all_missing_are_refused(folder):
    file = written(folder, HEADER + "a.png,1,2,9,9,\nnone.png,1,2,9,9,\n")
    found = cropped(None, CropOptions(boxes=file)).found
    with pytest.raises(ImageError, match=r"none.png\[1,2,9,9\]: cannot be read: No such file"):
        decode_image(found.images[1])
    with pytest.raises(InputError, match=r"no image of .* exists, such as none.png: paths are relative"):
        names(written(folder, HEADER + "none.png,1,2,9,9,\n"))


def test_the_arguments_choose_among_the_images_of_the_file(folder):
    file = written(folder, HEADER + "a.png,1,2,9,9,\nc.png,1,2,9,9,\n")
    done = cropped(find_sources([str(folder)]), CropOptions(boxes=file))
    assert done.found.names == [f"{folder}/a.png[1,2,9,9]"]
    assert done.notices == (
        f"left out 1 box of {file}: of images that are not among the arguments",
        f"left out 1 image without a box in {file}",
    )
    with pytest.raises(InputError, match=r"boxes.csv names none of the images, but others such as a.png"):
        names(file, f"{folder}/b.png")


def test_absolute_paths_belong_to_relative_arguments(folder, monkeypatch):
    monkeypatch.chdir(folder)
    file = written(folder, f"{HEADER}{folder}/a.png,1,2,9,9,\n")
    assert names(file, "a.png") == ["a.png[1,2,9,9]"]


def test_images_in_an_archive(folder):
    with tarfile.open(folder / "s.tar", "w") as archive:
        archive.add(folder / "a.png", "x.png")
    file = written(folder, HEADER + "s.tar/x.png,1,2,9,9,\n")
    done = cropped(find_sources([f"{folder}/s.tar"]), CropOptions(boxes=file)).found
    assert (done.names, done.files) == ([f"{folder}/s.tar/x.png[1,2,9,9]"], [f"{folder}/s.tar"])
    assert decode_image(done.images[0]) == decode_image(folder / "a.png").crop((1, 2, 9, 9))
    with pytest.raises(InputError, match="name archives and videos as arguments"):
        names(file)
    with pytest.raises(
        InputError, match=r"s.tar holds many images or none: name the archives, videos and tables"
    ):
        names(written(folder, HEADER + "s.tar,1,2,9,9,\n"))


def test_tiles_of_every_image_and_the_place_of_one_that_is_broken(folder):
    (folder / "broken.png").write_bytes(b"nothing")
    found = cropped(find_sources([str(folder)]), CropOptions(tiles="1x2")).found
    assert found.names == [
        f"{folder}/a.png[0,0,20,30]",
        f"{folder}/a.png[20,0,40,30]",
        f"{folder}/b.png[0,0,20,30]",
        f"{folder}/b.png[20,0,40,30]",
        f"{folder}/broken.png",
    ]
    assert decode_image(found.images[3]) == decode_image(folder / "b.png").crop((20, 0, 40, 30))


def test_tiles_need_a_size_that_the_options_allow():
    found = Found((SourceImage("a.png", lambda: Image.new("RGB", (20, 20))),))
    small, regions = DecodeOptions(max_megapixels=0.0001), CropOptions(tiles="1x2")
    assert cropped(found, regions, decode=small).found.names == ["a.png"]
    assert len(cropped(found, regions).found.names) == 2


def test_an_image_whose_size_cannot_be_read_does_not_end_the_run(folder):
    def fail() -> bytes:
        raise RuntimeError("of a library")

    images = (SourceImage("part", fail), f"{folder}/a.png")
    found = cropped(Found(images), CropOptions(tiles="1x2")).found
    assert found.names == ["part", f"{folder}/a.png[0,0,20,30]", f"{folder}/a.png[20,0,40,30]"]
    with pytest.raises(ImageError, match="part: "):
        decode_image(found.images[0])


@pytest.mark.parametrize("tiles", ["", "2", "0x2", "2x-1", "1000x1", "2x3x4"])
def test_tiles_that_are_none_are_refused(tiles):
    with pytest.raises(InputError) as error:
        CropOptions(tiles=tiles)
    assert (
        str(error.value) == f"--tiles must be rows x columns from 1x1 to 999x999, such as 2x3, not {tiles!r}"
    )


def test_boxes_and_tiles_together_are_refused():
    with pytest.raises(InputError, match="--boxes and --tiles both say which regions: give one of them"):
        CropOptions(boxes=Path("boxes.csv"), tiles="2x3")
