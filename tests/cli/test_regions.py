"""Verbs over regions of images: --boxes, --tiles and --grid."""

import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from mlx_aimv2 import Embedder, LoadOptions, crops, load
from mlx_aimv2.demo.images import sample_images
from mlx_aimv2.processing import crops as module
from mlx_aimv2.processing.decode import DecodeOptions
from mlx_aimv2.vectors.reading import read_vectors

HEADER = "path,left,top,right,bottom\n"


@pytest.fixture(scope="module")
def embedder(pair):
    return Embedder(*load(pair))


@pytest.fixture
def boxes(photos, tmp_path):
    """A file with four boxes, of which one reaches beyond its image, and one has no pixels."""
    lines = ["0.png,10,10,50,40", "1.png,0,0,60,60", "0.png,40,20,500,60", "1.png,300,0,400,90"]
    file = tmp_path / "boxes.csv"
    file.write_text(HEADER + "".join(f"{photos}/{line}\n" for line in lines), encoding="utf-8")
    return file


def cut(photos, name, box):
    return Image.open(photos / name).crop(box)


def test_boxes_become_vectors_of_regions_and_those_of_one_image_follow_each_other(
    cli, pair, photos, boxes, embedder
):
    done = cli("embed", "--boxes", boxes, "--model", pair)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["path"].removeprefix(f"{photos}/") for line in lines] == [
        "0.png[10,10,50,40]",
        "0.png[40,20,500,60]",
        "1.png[0,0,60,60]",
    ]
    cuts = [("0.png", (10, 10, 50, 40)), ("0.png", (40, 20, 90, 60)), ("1.png", (0, 0, 60, 60))]
    expected = embedder.images([cut(photos, name, box) for name, box in cuts])
    np.testing.assert_allclose([line["embedding"] for line in lines], expected, atol=1e-5)
    assert done.returncode == 1
    assert (
        f"skipped {photos}/1.png[300,0,400,90]: the box has no pixels in the image of 60x90 pixels"
        in done.stderr
    )
    assert "1 box reaches beyond the image: cut at its edge" in done.stderr
    assert "embedded 3 of 4 images" in done.stderr


def test_each_image_is_decoded_once(cli, pair, photos, boxes, monkeypatch):
    names, decode = [], module.decode_reduced
    monkeypatch.setattr(
        module, "decode_reduced", lambda source, *rest: (names.append(str(source)), decode(source, *rest))[1]
    )
    cli("embed", "--boxes", boxes, "--model", pair)
    assert sorted(names) == [f"{photos}/0.png", f"{photos}/1.png"]


def test_arguments_choose_among_the_images_of_the_file(cli, pair, photos, boxes):
    done = cli("embed", photos, "--boxes", boxes, "--exclude", "1.png", "--model", pair)
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == [
        f"{photos}/0.png[10,10,50,40]",
        f"{photos}/0.png[40,20,500,60]",
    ]
    assert f"left out 2 boxes of {boxes}: of images that are not among the arguments" in done.stderr
    assert f"left out 1 image without a box in {boxes}" in done.stderr


def test_a_later_run_embeds_only_new_boxes_and_those_of_changed_images(cli, pair, tmp_path, embedder):
    for name in ("a.png", "b.png"):
        Image.effect_noise((80, 80), 50).convert("RGB").save(tmp_path / name)
    file, target = tmp_path / "boxes.csv", f"{tmp_path}/shards/"
    file.write_text(f"{HEADER}a.png,0,0,40,40\nb.png,0,0,40,40\n", encoding="utf-8")
    run = ["embed", "--boxes", file, "--model", pair, "-o", target]
    assert cli(*run).returncode == 0
    with file.open("a", encoding="utf-8") as stream:
        stream.write("a.png,40,40,80,80\n")
    Image.effect_noise((80, 80), 90).convert("RGB").save(tmp_path / "b.png")
    again = cli(*run)
    assert "1 of them are in" in again.stderr
    assert "embedding 1 image again" in again.stderr
    vectors, boxes = read_vectors(target), {"a.png": (40, 40, 80, 80), "b.png": (0, 0, 40, 40)}
    assert len(vectors.paths) == 3
    for name, box in boxes.items():
        row = list(vectors.paths).index(f"{tmp_path}/{name}[{','.join(map(str, box))}]")
        expected = embedder.images(Image.open(tmp_path / name).crop(box))
        np.testing.assert_allclose(vectors.embeddings[row], expected[0], atol=1e-5)


def test_a_later_run_notices_another_box_under_the_same_id(cli, pair, photos, tmp_path, embedder):
    path, target = photos / "0.png", f"{tmp_path / 'vectors'}/"
    run = ["embed", "--boxes", tmp_path / "b.jsonl", "--model", pair, "-o", target]

    def embed(*boxes):
        line = {"path": str(path), "boxes": boxes, "ids": ["face", "hand"]}
        (tmp_path / "b.jsonl").write_text(json.dumps(line))
        return cli(*run)

    embed([0, 0, 8, 8], [4, 4, 12, 12])
    assert "2 of them are in" in embed([0, 0, 8, 8], [4, 4, 12, 12]).stderr
    done = embed([0, 0, 8, 8], [2, 2, 12, 12])
    assert "embedding 1 image again" in done.stderr
    vectors = read_vectors(target)
    assert list(vectors.paths) == ["face", "hand"]
    expected = embedder.images(crops(path, [(0, 0, 8, 8), (2, 2, 12, 12)]))
    np.testing.assert_allclose(vectors.embeddings, expected, atol=1e-6)


def test_tiles_in_a_file_and_of_an_archive(cli, pair, photos, tmp_path, embedder):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        archive.add(photos / "2.png", "x.png")
    target = tmp_path / "tiles.npz"
    done = cli("embed", photos / "0.png", tmp_path / "s.tar", "--tiles", "2x1", "--model", pair, "-o", target)
    assert done.returncode == 0, done.stderr
    vectors = read_vectors(target)
    assert list(vectors.paths) == [
        f"{photos}/0.png[0,0,90,30]",
        f"{photos}/0.png[0,30,90,60]",
        f"{tmp_path}/s.tar/x.png[0,0,200,40]",
        f"{tmp_path}/s.tar/x.png[0,40,200,80]",
    ]
    expected = embedder.images([cut(photos, "0.png", (0, 30, 90, 60)), cut(photos, "2.png", (0, 0, 200, 40))])
    np.testing.assert_allclose(vectors.embeddings[1:3], expected, atol=1e-5)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors", ".jsonl"])
def test_files_hold_the_grid_of_patches(cli, pair, photos, tmp_path, suffix):
    target = tmp_path / f"grid{suffix}"
    done = cli("embed", photos, "--tiles", "1x2", "--grid", "--model", pair, "-o", target)
    assert done.returncode == 0, done.stderr
    grids = Embedder(*load(pair), pooling="tokens").images([photos / f"{k}.png" for k in range(3)])
    vectors = read_vectors(target)
    assert vectors.embeddings.shape == (6, *grids.shape[1:])
    assert vectors.fingerprint["pooling"] == "tokens"


def test_labels_of_regions(cli, pair, photos, boxes):
    done = cli("classify", "--boxes", boxes, "-l", "a dog,a cat", "--top-k", 1, "--model", pair, "--json")
    assert [entry["path"].removeprefix(f"{photos}/") for entry in json.loads(done.stdout)] == [
        "0.png[10,10,50,40]",
        "0.png[40,20,500,60]",
        "1.png[0,0,60,60]",
    ]
    assert "1 box reaches beyond the image: cut at its edge" in done.stderr
    assert cli("classify", "-l", "a dog,a cat", "--model", pair).stderr == (
        "mlx-aimv2: error: Missing argument 'IMAGES...'; see `mlx-aimv2 classify --help`\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--grid --pooling max", "--grid is --pooling tokens, and not --pooling max: give one of them"),
        ("--grid -o x.parquet", "a .parquet file holds one vector per row: use .npz for token grids"),
        ("--grid --text", "--pooling tokens is for images: texts have one embedding"),
        ("--tiles 2x2 --text", "--boxes and --tiles are for images: texts have no regions"),
        ("--tiles 2", "--tiles must be rows x columns from 1x1 to 999x999, such as 2x3, not '2'"),
        ("--boxes none.csv", "none.csv cannot be read: No such file or directory"),
    ],
)
def test_what_does_not_fit_together_is_refused(cli, pair, photos, arguments, message):
    done = cli("embed", photos / "0.png", *arguments.split(), "--model", pair)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"mlx-aimv2: error: {message}\n"


def test_regions_at_native_resolution(tiny_native, tmp_path):
    image = Image.effect_noise((600, 500), 80).convert("RGB")
    model, processor = load(tiny_native)
    boxes = [(0, 0, 600, 500), (100, 100, 310, 240)]
    grids = [item.vector for item in Embedder(model, processor, "tokens").stream(crops(image, boxes))]
    whole = [
        item.vector for item in Embedder(model, processor, "tokens").stream([image.crop(b) for b in boxes])
    ]
    for grid, expected in zip(grids, whole, strict=True):
        np.testing.assert_allclose(grid, expected, atol=1e-5)


def test_vectors_of_crops_of_reduced_jpegs_are_near_the_exact_ones(tmp_path):
    sheet = Image.new("RGB", (1792, 1792))
    for number, sample in enumerate(sample_images()[:4]):
        large = sample.open().resize((896, 896), Image.Resampling.LANCZOS)
        sheet.paste(large, (number % 2 * 896, number // 2 * 896))
    sheet.save(tmp_path / "sheet.jpg", quality=92)
    boxes = [(0, 0, 896, 896), (896, 0, 1792, 896), (450, 500, 1350, 1400)]
    vectors = []
    for decode in ("fast", "exact"):
        options = LoadOptions(decode=DecodeOptions(decode=decode, color_managed=False))
        made = crops(tmp_path / "sheet.jpg", boxes)
        vectors.append(Embedder(*load("demo", options=options)).images(made))
    assert not np.array_equal(*vectors)  # the JPEG was reduced
    assert ((vectors[0] * vectors[1]).sum(axis=1) > 0.999).all()
