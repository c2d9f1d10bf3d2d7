"""The verb `compare`, and what `evaluate --compare` says of it."""

import json
import shutil

import pytest


@pytest.fixture(scope="module")
def converted(cli, pair, tmp_path_factory):
    """The tiny pair in 4 bits."""
    folder = tmp_path_factory.mktemp("compare") / "q4"
    done = cli("convert", "--hf-path", pair, "--mlx-path", folder, "-q", "--q-group-size", "32")
    assert done.returncode == 0
    return folder


def test_tables_in_a_pipe(cli, pair, converted, photos):
    done = cli("compare", pair, converted, photos)
    assert done.returncode == 0
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert rows[0] == ["what", "original", "converted"]
    assert rows[1] == ["checkpoint", str(pair), str(converted)]
    assert ["stored as", "float32", "4-bit affine, groups of 32"] in rows
    layers = rows[rows.index(["layer", "relative error"]) + 1 :]
    assert len(layers) == 5 and layers[0][0] == "vision_model.encoder.layers.2"
    assert "weights were unpacked to float32" in done.stderr
    assert "compared on 3 images, layer by layer" in done.stderr
    assert "these are the 5 of 7 layers with the largest error; --layers shows all" in done.stderr


def test_all_layers_in_their_order(cli, pair, converted, photos):
    done = cli("compare", pair, converted, photos, "--layers")
    names = [line.split("\t")[0] for line in done.stdout.partition("layer\trelative error\n")[2].splitlines()]
    assert len(names) == 7
    assert (names[0], names[-1]) == ("vision_model.embeddings", "text_model.encoder.layers.1")
    assert "--layers" not in done.stderr


def test_json_is_one_object_on_built_in_drawings(cli, pair):
    done = cli("compare", pair, pair, "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert (found["images"], found["drawn"], found["neighbours"]) == (64, True, 10)
    assert found["neighbour_recall"] == pytest.approx(1, abs=0.01)
    assert found["zero_shot"]["agreement"] == 1
    assert found["cosine_min"] == pytest.approx(1, abs=1e-6)
    assert found["original"]["name"] == str(pair)


def test_options_reach_the_models(cli, pair, converted, photos):
    arguments = ("compare", pair, converted, photos, "--json")
    plain = json.loads(cli(*arguments).stdout)
    other = json.loads(
        cli(*arguments, "--dtype", "bfloat16", "--keep-quantized", "--weights", "model.safetensors").stdout
    )
    assert (plain["converted"]["dtype"], plain["converted"]["unpacked"]) == ("float32", True)
    assert (other["converted"]["dtype"], other["converted"]["unpacked"]) == ("bfloat16", False)


def test_a_broken_image_is_named_and_the_rest_compared(cli, pair, converted, photos, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no")
    done = cli("compare", pair, converted, tmp_path / "broken.png", photos, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["images"] == 3
    assert f"skipped {tmp_path / 'broken.png'}: " in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{photo}"], "a comparison needs at least two images, not 1"),
        (["{empty}"], "no images in the folder"),
        (["--dtype", "int8"], "dtype 'int8' is not one of"),
        (["--device", "tpu"], "device 'tpu' is neither cpu nor gpu"),
    ],
)
def test_mistakes_get_one_clear_line(cli, pair, photos, tmp_path, arguments, message):
    names = [argument.format(photo=photos / "0.png", empty=tmp_path) for argument in arguments]
    done = cli("compare", pair, pair, *names)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("not-there", 1, "no folder {}: check the path"),
        ("damaged", 1, "{}/model.safetensors is not a safetensors"),
    ],
)
def test_what_cannot_be_compared(cli, pair, tmp_path, name, status, message):
    shutil.copytree(pair, tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"short")
    done = cli("compare", pair, tmp_path / name)
    assert done.returncode == status
    assert message.format(tmp_path / name) in done.stderr and not done.stdout


def test_evaluate_names_the_verb(cli):
    done = cli("evaluate", "--compare", "a b", "c", "photos/", "--layers")
    assert done.returncode == 2
    assert done.stderr == "mlx-aimv2: error: compare is a verb now: mlx-aimv2 compare 'a b' c\n"
    done = cli("evaluate", "--compare=a")
    assert done.stderr == "mlx-aimv2: error: compare is a verb now: mlx-aimv2 compare ORIGINAL CONVERTED\n"
