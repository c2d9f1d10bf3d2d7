import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from mlx_aimv2 import Embedder, LoadOptions, load
from mlx_aimv2.processing.decode import DecodeOptions


def embed_here(model, pictures, **options):
    """What the command should print, computed in this process, one picture at a time."""
    loaded, processor = load(model, options=LoadOptions(decode=DecodeOptions(decode="fast")))
    embedder = Embedder(loaded, processor, batch_size=1, **options)
    return np.concatenate([embedder.images(str(picture)) for picture in pictures])


def test_a_pipe_gets_a_json_line_for_each_picture(cli, pair, photos):
    done = cli("embed", photos, "--model", pair)
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["path"] for line in lines] == [str(photos / f"{k}.png") for k in range(3)]
    expected = embed_here(pair, sorted(photos.iterdir()))
    np.testing.assert_allclose([line["embedding"] for line in lines], expected, atol=1e-5)
    assert "embedded 3 of 3 pictures" in done.stderr


def test_the_arguments_are_texts_with_text(cli, pair):
    done = cli("embed", "--text", "a dog", "a cat", "--model", pair)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["text"] for line in lines] == ["a dog", "a cat"]
    loaded, processor = load(pair)
    expected = Embedder(loaded, processor).texts(["a dog", "a cat"])
    np.testing.assert_allclose([line["embedding"] for line in lines], expected, atol=1e-5)


@pytest.mark.parametrize("separator", ["\n", "\0"])
def test_a_dash_reads_the_list_from_stdin(cli, pair, photos, separator):
    listed = separator.join([str(photos / "2.png"), str(photos / "0.png"), ""])
    done = cli("embed", "-", "--model", pair, stdin=listed)
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == [
        str(photos / "2.png"),
        str(photos / "0.png"),
    ]


def test_a_file_holds_every_vector_and_what_made_it(cli, pair, photos, tmp_path):
    target = tmp_path / "vectors.npz"
    done = cli("embed", photos, "--model", pair, "-o", target)
    assert (done.returncode, done.stdout) == (0, "")
    with np.load(target) as data:
        assert data["embeddings"].shape == (3, 32)
        assert data["embeddings"].dtype == np.float32
        assert data["paths"].tolist() == [str(photos / f"{k}.png") for k in range(3)]
        assert json.loads(str(data["fingerprint"]))["pooling"] == "projected"
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.npz"]


def test_shards_are_continued_and_not_mixed(cli, pair, photos, tmp_path):
    target = f"{tmp_path}/shards/"
    assert cli("embed", photos / "0.png", "--model", pair, "-o", target).returncode == 0
    again = cli("embed", photos, "--model", pair, "-o", target)
    assert again.returncode == 0
    assert "1 of them are in" in again.stderr
    assert "wrote 3 vectors in all" in again.stderr
    other = cli("embed", photos, "--model", pair, "-o", target, "--pooling", "mean")
    assert other.returncode == 2
    assert "vectors of different models cannot be mixed" in other.stderr


def draw_mixed(folder, count, broken_at):
    """Pictures of many kinds and sizes; those at ``broken_at`` are broken in ten different ways."""
    rng = np.random.default_rng(0)
    whole = io.BytesIO()
    Image.effect_noise((120, 90), 50).convert("RGB").save(whole, "jpeg")
    jpeg = whole.getvalue()
    kinds = [
        ("RGB", "jpg"),
        ("RGB", "png"),
        ("L", "png"),
        ("RGBA", "png"),
        ("P", "gif"),
        ("CMYK", "jpg"),
        ("RGB", "webp"),
    ]
    damage = {
        "empty.jpg": b"",
        "text.jpg": b"this is not a picture",
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "header.png": b"\x89PNG\r\n\x1a\n",
        "pdf.png": b"%PDF-1.7 something",
        "svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "tiny.gif": b"GIF89a\x01\x00",
        "zeros.webp": bytes(400),
        "html.jpg": b"<!DOCTYPE html><html></html>",
        "riff.webp": b"RIFF\x10\x00\x00\x00WEBPVP8 ",
    }
    broken = iter(damage.items())
    for number in range(count):
        if number in broken_at:
            name, data = next(broken)
            (folder / f"{number:03d}-{name}").write_bytes(data)
            continue
        mode, suffix = kinds[number % len(kinds)]
        size = tuple(int(x) for x in rng.integers(20, 160, 2))
        pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{number:03d}.{suffix}")


def test_five_hundred_mixed_pictures_ten_of_them_broken(cli, pair, tmp_path):
    broken_at = list(range(7, 500, 50))
    folder, target = tmp_path / "mixed", tmp_path / "vectors.npz"
    folder.mkdir()
    draw_mixed(folder, 500, broken_at)
    done = cli("embed", folder, "--model", pair, "-o", target)
    assert done.returncode == 1
    skipped = [line for line in done.stderr.splitlines() if "skipped" in line and "embedded" not in line]
    files = sorted(folder.iterdir())
    assert len(skipped) == 10
    for line, number in zip(skipped, broken_at, strict=True):
        name, _, reason = line.removeprefix("mlx-aimv2: skipped ").partition(": ")
        assert name == str(files[number])
        assert reason
    assert "embedded 490 of 500 pictures" in done.stderr
    good = [path for number, path in enumerate(files) if number not in broken_at]
    with np.load(target) as data:
        assert data["paths"].tolist() == [str(path) for path in good]
        np.testing.assert_allclose(data["embeddings"], embed_here(pair, good), atol=1e-5)


def many(folder, count):
    """A folder with one picture under ``count`` names."""
    folder.mkdir()
    Image.effect_noise((600, 500), 80).convert("RGB").save(folder / "00000.png")
    for number in range(1, count):
        os.link(folder / "00000.png", folder / f"{number:05d}.png")
    return folder


def test_an_interruption_keeps_what_was_finished(pair, tmp_path):
    folder, target = many(tmp_path / "many", 10_000), tmp_path / "vectors.npz"
    command = [sys.executable, "-m", "mlx_aimv2", "embed", str(folder), "--model", str(pair)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(1) == b"{"
        time.sleep(2)  # the pipe fills up
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130


def test_debug_shows_where_it_went_wrong(cli, pair, photos):
    done = cli("embed", photos, "--model", "/no/such/folder", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
