"""Options that verbs share: their defaults, what `load` gets, and the adapter, which is read once."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
from drawn_world.untrained import write_checkpoint
from PIL import Image, ImageDraw
from typer.testing import CliRunner

import mlx_aimv2
from mlx_aimv2 import Embedder, load
from mlx_aimv2.cli.app import app
from mlx_aimv2.cli.model_options import AdapterOptions, ExactModelOptions, LoadingOptions
from mlx_aimv2.errors import InputError
from mlx_aimv2.loading import LoadOptions
from mlx_aimv2.processing.decode import DecodeOptions


@pytest.fixture
def here(monkeypatch):
    """Runs a verb in this process, with its output piped."""

    def end(status):
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.delenv("MLX_AIMV2_DEVICE", raising=False)

    def run(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def embedded(here):
    """The vectors that `embed` prints."""

    def run(*arguments):
        done = here("embed", *arguments)
        assert done.exit_code == 0, done.output
        return np.array([json.loads(line)["embedding"] for line in done.stdout.splitlines()])

    return run


def test_vectors_have_length_one_unless_asked_otherwise(embedded, pair, photos):
    model, processor = load(pair)
    names = [str(photos / f"{k}.png") for k in range(3)]
    plain = Embedder(model, processor, normalize=False).images(names)
    lengths = np.linalg.norm(plain, axis=1)
    assert np.abs(lengths - 1).min() > 0.01
    np.testing.assert_allclose(embedded(photos, "--model", pair, "--no-normalize"), plain, atol=1e-5)
    unit = plain / lengths[:, None]
    np.testing.assert_allclose(embedded(photos, "--model", pair), unit, atol=1e-5)
    np.testing.assert_allclose(embedded(photos, "--model", pair, "--normalize"), unit, atol=1e-5)


def test_texts_too(embedded, pair):
    lengths = [
        np.linalg.norm(embedded("--text", "a dog", "--model", pair, *more))
        for more in ((), ("--no-normalize",))
    ]
    assert lengths[0] == pytest.approx(1, abs=1e-5) and abs(lengths[1] - 1) > 0.01


@pytest.mark.parametrize("count", [1, 2, 3])
def test_json_holds_as_many_predictions_as_asked_for(here, pair, photos, count):
    request = ("classify", photos, "-l", "cat,dog,bird,fish", "--model", pair, "--json")
    everything = json.loads(here(*request).stdout)
    best = json.loads(here(*request, "--top-k", count).stdout)
    assert [len(one["predictions"]) for one in everything] == [4] * 3
    assert [one["predictions"] for one in best] == [one["predictions"][:count] for one in everything]


def test_without_it_there_are_five(here, pair, photos):
    done = here("classify", photos / "0.png", "-l", "a,b,c,d,e,f,g", "--model", pair, "--json")
    assert len(json.loads(done.stdout)[0]["predictions"]) == 5


@pytest.mark.parametrize(("most", "grid"), [(16, (4, 4)), (30, (5, 6)), (200, (14, 14))])
def test_the_most_patches_alone_are_enough(embedded, tiny_native, tmp_path, most, grid):
    Image.effect_noise((600, 600), 50).convert("RGB").save(tmp_path / "a.png")
    arguments = (tmp_path / "a.png", "--model", tiny_native, "--pooling", "tokens", "--max-patches", most)
    assert embedded(*arguments).shape == (1, *grid, 64)


def test_native_resolution_has_bounds_by_default(embedded, tiny_native, tmp_path):
    for side in (20, 1200):
        Image.effect_noise((side, side), 50).convert("RGB").save(tmp_path / f"{side}.png")
    small, large = (
        embedded(tmp_path / f"{side}.png", "--model", tiny_native, "--pooling", "tokens").shape[1:3]
        for side in (20, 1200)
    )
    assert 112 <= small[0] * small[1] < 150 and large == (64, 64)


WITH_A_DEVICE = {
    "embed": ["embed", "PHOTOS", "--model", "PAIR"],
    "classify": ["classify", "PHOTOS", "-l", "a,b", "--model", "PAIR"],
    "evaluate": ["evaluate", "--data", "SHADES", "--model", "PAIR"],
    "convert": ["convert", "--model", "PAIR", "--mlx-path", "OUT"],
    "demo": ["demo", "OUT", "--model", "PAIR"],
    "finetune": ["finetune", "--data", "SHADES", "--model", "PAIR", "--adapter-path", "OUT"],
}


@pytest.mark.parametrize("name", WITH_A_DEVICE)
def test_the_environment_chooses_the_device(here, monkeypatch, tmp_path, pair, photos, shades, name):
    used = []

    def use(device):
        used.append(device)
        raise InputError("far enough")

    monkeypatch.setattr("mlx_aimv2.backend.device.use_device", use)
    places = {"PAIR": pair, "PHOTOS": photos, "SHADES": shades, "OUT": tmp_path / "out"}
    arguments = [places.get(word, word) for word in WITH_A_DEVICE[name]]
    monkeypatch.setenv("MLX_AIMV2_DEVICE", "gpu")
    assert here(*arguments).exit_code == 2
    assert here(*arguments, "--device", "cpu").exit_code == 2  # the command line wins
    assert used == ["gpu", "cpu"]


def test_the_device_of_the_environment_is_used_and_checked(cli, pair, photos):
    done = cli("embed", photos / "0.png", "--model", pair, MLX_AIMV2_DEVICE="tpu")
    assert done.returncode == 2
    assert "device 'tpu' is neither cpu nor gpu" in done.stderr


@pytest.mark.parametrize(("name", "decode"), [("embed", "fast"), ("classify", "fast"), ("evaluate", "exact")])
def test_how_images_are_read_by_default(here, monkeypatch, tmp_path, pair, photos, shades, name, decode):
    asked = []

    def stop(model, options=None, **others):
        asked.append(options)
        raise InputError("far enough")

    monkeypatch.setattr(mlx_aimv2, "load", stop)
    places = {"PAIR": pair, "PHOTOS": photos, "SHADES": shades}
    assert here(*(places.get(word, word) for word in WITH_A_DEVICE[name])).exit_code == 2
    (options,) = asked
    assert (options.decode.decode, options.decode.background, options.decode.max_megapixels) == (
        decode,
        "white",
        200,
    )
    assert (options.native.min_patches, options.native.max_patches) == (112, 4096)
    assert options.dtype == "auto" and not options.keep_quantized


@pytest.fixture(scope="module")
def sharp(tmp_path_factory):
    """A pair that sees small differences."""
    return write_checkpoint(tmp_path_factory.mktemp("defaults") / "pair")


def test_large_jpegs_are_decoded_fast_by_default(embedded, sharp, tmp_path):
    Image.effect_noise((1600, 1200), 90).convert("RGB").save(tmp_path / "large.jpg")
    request = (tmp_path / "large.jpg", "--model", sharp)
    default, fast, exact = (
        embedded(*request, *more) for more in ((), ("--decode", "fast"), ("--decode", "exact"))
    )
    assert np.array_equal(default, fast) and not np.allclose(default, exact, atol=1e-4)


def test_transparent_images_stand_on_white_by_default(embedded, sharp, tmp_path):
    image = Image.new("RGBA", (90, 90), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((20, 20, 70, 70), fill=(200, 30, 30, 255))
    image.save(tmp_path / "a.png")
    request = (tmp_path / "a.png", "--model", sharp)
    default, white, black, drop = (
        embedded(*request, *more)
        for more in ((), *(("--background", name) for name in ("white", "black", "drop")))
    )
    assert np.array_equal(default, white)
    assert not np.allclose(default, black, atol=1e-4) and not np.allclose(default, drop, atol=1e-4)


def png_without_pixels(width, height):
    """A PNG of black and white that says how large it is, and holds nothing."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def test_200_megapixels_are_the_most_by_default(here, pair, tmp_path):
    (tmp_path / "a.png").write_bytes(png_without_pixels(14_143, 14_143))
    (tmp_path / "b.png").write_bytes(png_without_pixels(14_142, 14_142))
    done = here("embed", tmp_path / "a.png", tmp_path / "b.png", "--model", pair)
    assert done.exit_code == 1
    large, other = (line for line in done.stderr.splitlines() if ": skipped " in line)
    assert "200.0 megapixels" in large and "200 allowed" in large
    assert "allowed" not in other


def test_positions_are_resampled_where_it_is_asked_for(cli, pair, photos, tmp_path):
    request = ["embed", photos / "0.png", "-m", pair, "--json", "--image-size", 84]
    refused = cli(*request)
    assert refused.returncode == 2 and refused.stdout == ""
    assert (
        "takes 56 x 56 pixels, not 84 on a side: resample the position table with --interpolate"
        in refused.stderr
    )
    done = cli(*request, "--interpolate-positions")
    assert done.returncode == 0
    options = LoadOptions(interpolate_positions=True, image_size=84, decode=DecodeOptions(decode="fast"))
    expected = Embedder(*load(pair, options=options)).images([photos / "0.png"])[0]
    np.testing.assert_allclose(json.loads(done.stdout)["embedding"], expected, atol=1e-6)
    written = cli(
        "convert", "--model", pair, "--mlx-path", tmp_path / "84", *request[-2:], "--interpolate-positions"
    )
    assert written.returncode == 0
    assert (
        json.loads(cli("info", tmp_path / "84", "--json").stdout)["config"]["vision_config"]["image_size"]
        == 84
    )
    again = cli(*request[:3], tmp_path / "84", "--json")
    np.testing.assert_allclose(json.loads(again.stdout)["embedding"], expected, atol=1e-6)


def test_the_folder_of_an_adapter_is_read_once(probe, pair):
    options = ExactModelOptions(adapter_path=probe)
    named = options.with_base()
    assert named.model == str(pair) and named.adapter is options.adapter


def test_any_base_needs_an_adapter():
    with pytest.raises(InputError, match="--any-base needs --adapter-path"):
        AdapterOptions(any_base=True)


@pytest.mark.parametrize(
    ("patches", "expected"),
    [({"max_patches": 50}, (50, 50)), ({"min_patches": 1}, (1, 4096)), ({}, (112, 4096))],
)
def test_a_small_largest_number_of_patches_lowers_the_default_of_the_least(patches, expected):
    native = LoadingOptions(**patches).load_options().native
    assert (native.min_patches, native.max_patches) == expected
