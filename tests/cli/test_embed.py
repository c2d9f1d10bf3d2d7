import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from drawn_world.untrained import TINY_VISION, random_tensors, write_checkpoint
from helpers.terminal import Terminal, start
from PIL import Image

from mlx_aimv2 import Aimv2VisionConfig, Embedder, LoadOptions, load
from mlx_aimv2.processing.decode import DecodeOptions
from mlx_aimv2.vectors.reading import read_vectors


def embed_here(model, images, **options):
    """What the command should print, computed in this process, one image at a time."""
    loaded, processor = load(model, options=LoadOptions(decode=DecodeOptions(decode="fast")))
    embedder = Embedder(loaded, processor, batch_size=1, **options)
    return np.concatenate([embedder.images(str(image)) for image in images])


def test_a_pipe_gets_a_json_line_for_each_image(cli, pair, photos):
    done = cli("embed", photos, "--model", pair)
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["path"] for line in lines] == [str(photos / f"{k}.png") for k in range(3)]
    expected = embed_here(pair, sorted(photos.iterdir()))
    np.testing.assert_allclose([line["embedding"] for line in lines], expected, atol=1e-5)
    assert "embedded 3 of 3 images" in done.stderr


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
    assert "vectors of another kind (pooling: projected, now mean): they cannot be mixed" in other.stderr


def draw_mixed(folder, count, broken_at):
    """Images of many kinds and sizes; those at ``broken_at`` are broken in ten different ways."""
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
        "text.jpg": b"this is not an image",
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


def test_five_hundred_mixed_images_ten_of_them_broken(cli, pair, tmp_path):
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
    assert "embedded 490 of 500 images" in done.stderr
    good = [path for number, path in enumerate(files) if number not in broken_at]
    with np.load(target) as data:
        assert data["paths"].tolist() == [str(path) for path in good]
        np.testing.assert_allclose(data["embeddings"], embed_here(pair, good), atol=1e-5)


def test_an_interruption_keeps_what_was_finished(pair, many, tmp_path):
    terminal, target = Terminal(), tmp_path / "vectors.npz"
    with start(["embed", many("many", 10_000), "--model", pair, "-o", target], terminal) as process:
        terminal.wait_for(r"[1-9]\d*/10000")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    terminal.close()
    assert "Traceback" not in terminal.text
    assert terminal.shows_cursor
    (line,) = (line for line in terminal.lines if "embedded" in line)
    with np.load(target) as data:
        assert 0 < len(data["embeddings"]) == len(data["paths"]) < 10_000
        assert line.startswith(f"mlx-aimv2: embedded {len(data['paths'])} of 10000 images in ")
    assert line.endswith(", interrupted")


@pytest.mark.slow
def test_an_interruption_does_not_wait_for_a_long_computation(tmp_path):
    large = Aimv2VisionConfig(is_native=True, use_head=False)
    model = write_checkpoint(tmp_path / "native", large)
    for name in ("a.png", "b.png"):  # 4096 patches each: half a minute
        Image.effect_noise((896, 896), 80).convert("RGB").save(tmp_path / name)
    terminal = Terminal()
    with start(["embed", tmp_path / "a.png", tmp_path / "b.png", "--model", model], terminal) as process:
        terminal.wait_for("0/2")
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        assert process.wait(timeout=60) == 130
    terminal.close()
    assert time.monotonic() - sent < 2
    assert "embedded 0 of 2 images" in terminal.text


def test_a_reader_that_has_enough_ends_it_quietly(pair, photos):
    command = f"{sys.executable} -m mlx_aimv2 embed {photos} {photos}/../*/*.png --model {pair} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr
    assert "interrupted" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["missing.png"], 1, "skipped missing.png: cannot be read: No such file or directory"),
        (["*.nothing"], 2, "no images match *.nothing"),
        (["{photos}", "-o", "x.txt"], 2, "no format ends in .txt"),
        (["{photos}", "-o", "/nowhere/at/all.npz"], 1, "/nowhere/at/all.npz cannot be written"),
        (["{photos}", "--pooling", "min"], 2, "pooling 'min' is not one of auto, mean, max, head, tokens"),
        (["{photos}", "--dtype", "int8"], 2, "dtype 'int8' is not one of auto, float32, float16, bfloat16"),
        (["{photos}", "--device", "tpu"], 2, "device 'tpu' is neither cpu nor gpu"),
        (["{photos}", "--batch-size", "0"], 2, "--batch-size"),
        (["{photos}", "--decode", "quick"], 2, "quick"),
        (["{photos}", "--background", "octarine"], 2, "octarine"),
        (["{photos}", "--max-megapixels", "0.001"], 1, "megapixels"),
        (["{photos}", "--model", "/no/such/folder"], 1, "no folder /no/such/folder"),
        (["{photos}", "--model", "large-225"], 2, "large-224"),
        (["{photos}", "--model", "lit"], 1, "give a local folder"),
        (["-"], 2, "no images"),
    ],
)
def test_mistakes_get_one_clear_line(cli, pair, photos, tmp_path, arguments, status, message):
    given = [argument.format(photos=photos) for argument in arguments]
    model = [] if "--model" in given else ["--model", pair]
    done = cli("embed", *given, *model, stdin="", HF_HOME=str(tmp_path))
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_texts_go_into_shards_once(cli, pair, tmp_path):
    target = f"{tmp_path}/shards/"
    for _ in range(2):
        done = cli("embed", "--text", "a dog", "a cat", "--model", pair, "-o", target)
        assert done.returncode == 0
    assert "wrote 2 vectors in all" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "a", "--pooling", "mean"], "--pooling mean is for images: texts have one embedding"),
        (
            ["a.png", "--json", "-o", "x.npz"],
            "--json prints to stdout and -o writes a file: give one of them",
        ),
        (["a.png", "--pooling", "min", "--model", "lit"], "pooling 'min' is not one of"),
        (["a.png", "-o", "x.csv", "--model", "lit"], "no format ends in .csv"),
    ],
)
def test_contradictions_are_found_before_a_model_is_loaded(cli, arguments, message):
    done = cli("embed", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_what_is_finished_is_saved_when_an_image_cannot_join_it(cli, photos, tmp_path):
    native = dataclasses.replace(TINY_VISION, use_head=False, is_native=True)
    tiny = write_checkpoint(tmp_path / "native", native)
    target = tmp_path / "grids.npz"
    done = cli("embed", photos, "--model", tiny, "--pooling", "tokens", "--min-patches", "1", "-o", target)
    assert done.returncode == 2
    assert "has a token grid of" in done.stderr
    with np.load(target) as data:
        assert data["paths"].tolist() == [str(photos / "0.png")]


def test_names_that_are_no_text_pass_through_a_pipe(pair, photos, tmp_path):
    strange = os.fsencode(tmp_path) + b"/caf\xe9\t1.png"
    os.link(photos / "0.png", strange)
    command = [sys.executable, "-m", "mlx_aimv2", "classify", strange, "-l", "a,b", "--model", str(pair)]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "MLX_AIMV2_DEVICE": "cpu"})
    assert done.returncode == 0, done.stderr
    path, label, _ = done.stdout.splitlines()[1].split(b"\t")
    assert path == strange.replace(b"\t", b"\\t")
    assert label in (b"a", b"b")


@pytest.mark.skipif(
    not Path("/proc/self/wchan").exists(), reason="needs Linux to see what a process waits for"
)
def test_ctrl_c_ends_a_run_whose_output_nobody_reads(pair, many):
    command = [sys.executable, "-m", "mlx_aimv2", "embed", str(many("many", 3000)), "--model", str(pair)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(1) == b"{"
        waits_for = Path(f"/proc/{process.pid}/wchan")
        deadline = time.monotonic() + 60  # for kernels that do not tell
        while (
            "pipe_write" not in waits_for.read_text() and time.monotonic() < deadline
        ):  # until the pipe is full
            assert process.poll() is None
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130


def test_debug_shows_where_it_went_wrong(cli, pair, photos):
    done = cli("embed", photos, "--model", "/no/such/folder", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("output", ["v.npz", "v.npy", "v/"])
def test_what_exists_is_refused_before_a_model_is_loaded(cli, tmp_path, photos, output):
    if output.endswith("/"):
        (tmp_path / "v").mkdir()
        (tmp_path / "v" / "embeddings-00000.npz").write_text("mine")
    else:
        (tmp_path / output).write_text("mine")
    done = cli("embed", photos, "-o", f"{tmp_path}/{output}", "--model", tmp_path / "no-such-model")
    assert done.returncode == 2 and "--force" in done.stderr and "no-such-model" not in done.stderr
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]


def test_a_result_is_replaced_when_asked_also_through_a_link(cli, pair, tmp_path, photos):
    (tmp_path / "real.npz").write_text("mine")
    (tmp_path / "v.npz").symlink_to("real.npz")
    assert cli("embed", photos, "-o", tmp_path / "v.npz", "--force", "--model", pair).returncode == 0
    assert (tmp_path / "v.npz").is_symlink() and len(read_vectors(tmp_path / "real.npz").paths) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.jpg", "--force"], "--force needs -o"),
        (["a.jpg", "--prune"], "--prune needs -o"),
        (["a.jpg", "--retry-failed"], "--retry-failed needs -o"),
        (["a.jpg", "--shard-format", "npz"], "--shard-format needs -o"),
        (
            ["a.jpg", "--retry-failed", "-o", "v.npz"],
            "--retry-failed is for a folder of shards, and v.npz is a",
        ),
        (["a.jpg", "--shard-format", "npz", "-o", "v.npz"], "--shard-format is for a folder of shards"),
        (["a.jpg", "--shard-format", "csv", "-o", "v/"], "'csv' is not one of safetensors, parquet, npz"),
        (
            ["a.jpg", "--shard-format", "parquet", "-o", "v/", "--pooling", "tokens"],
            "parquet holds one vector",
        ),
        (["a.jpg", "--prune", "-o", "v.npz"], "--prune is for a folder of shards"),
        (["a", "--text", "--prune", "-o", "v/"], "--prune is for images"),
    ],
)
def test_options_of_writing_that_have_no_use_are_refused(cli, arguments, message):
    done = cli("embed", *arguments)
    assert done.returncode == 2 and message in done.stderr


def test_a_folder_that_is_continued_holds_what_a_fresh_run_would(cli, pair, photos, tmp_path, monkeypatch):
    shutil.copytree(photos, tmp_path / "x")
    monkeypatch.chdir(tmp_path / "x")
    assert cli("embed", ".", "-o", "../v/", "--model", pair).returncode == 0
    monkeypatch.chdir(tmp_path)
    again = cli("embed", "x", "-o", "v/", "--model", pair)
    assert again.returncode == 0 and "3 of them are in" in again.stderr and "wrote 3 vectors" in again.stderr
    assert read_vectors("v").paths == ("0.png", "1.png", "2.png")
    Image.effect_noise((90, 60), 120).convert("RGB").save("x/0.png")
    (tmp_path / "x" / "2.png").unlink()
    again = cli("embed", tmp_path / "x", "-o", "v/", "--model", pair)
    assert "embedding 1 image again, because the content has changed" in again.stderr
    assert "1 image of" in again.stderr and "cannot be found any more: --prune" in again.stderr
    pruned = cli("embed", "x", "-o", "v/", "--prune", "--model", pair)
    assert pruned.returncode == 0 and "removed the vectors of 1 image" in pruned.stderr
    found = read_vectors("v")
    assert sorted(found.paths) == ["0.png", "1.png"]
    fresh = embed_here(pair, [tmp_path / "x" / name for name in found.paths])
    np.testing.assert_allclose((found.embeddings * fresh).sum(axis=1), 1, atol=1e-5)


def test_images_that_failed_are_named_in_the_folder_and_tried_again_when_asked(cli, pair, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "x")
    (tmp_path / "x" / "1.png").write_bytes(b"not an image")
    arguments = ["embed", tmp_path / "x", "--model", pair, "-o", f"{tmp_path}/v/"]
    assert cli(*arguments).returncode == 1
    (line,) = map(json.loads, (tmp_path / "v" / "errors.jsonl").read_text().splitlines())
    assert line["path"] == line["file"] == str(tmp_path / "x" / "1.png")
    assert line["kind"] == "BrokenImageError" and "1.png" not in line["reason"]
    again = cli(*arguments)
    assert again.returncode == 1 and "is not an image" not in again.stderr
    message = (
        f"skipped 1 image: failed before and did not change (see {tmp_path}/v/errors.jsonl): --retry-failed"
    )
    assert message in again.stderr
    retried = cli(*arguments, "--retry-failed")
    assert retried.returncode == 1 and f"skipped {tmp_path}/x/1.png: " in retried.stderr
    Image.effect_noise((90, 60), 120).convert("RGB").save(tmp_path / "x" / "1.png")
    assert cli(*arguments).returncode == 0 and not (tmp_path / "v" / "errors.jsonl").exists()
    assert read_vectors(tmp_path / "v").paths == tuple(str(tmp_path / "x" / f"{k}.png") for k in range(3))


@pytest.mark.parametrize("shard_format", ["safetensors", "parquet", "npz"])
def test_the_format_of_shards_is_an_option(cli, pair, photos, tmp_path, shard_format):
    done = cli("embed", photos, "--model", pair, "-o", f"{tmp_path}/v/", "--shard-format", shard_format)
    assert done.returncode == 0
    assert (tmp_path / "v" / f"embeddings-00000.{shard_format}").is_file()
    np.testing.assert_allclose(
        read_vectors(tmp_path / "v").embeddings, embed_here(pair, sorted(photos.iterdir())), atol=1e-5
    )


def test_lines_from_a_pipe_are_read_back(cli, pair, photos, tmp_path):
    done = cli("embed", photos, "--model", pair)
    (tmp_path / "o.txt").write_text(done.stdout)
    found = read_vectors(tmp_path / "o.txt")
    assert found.paths == tuple(str(photos / f"{k}.png") for k in range(3)) and found.fingerprint == {}
    np.testing.assert_allclose(found.embeddings, embed_here(pair, found.paths), atol=1e-5)


def test_a_model_that_gives_zeros_gives_no_vectors(cli, photos, tmp_path):
    model = write_checkpoint(tmp_path / "zeros", draw=zeros)
    done = cli("embed", photos, "--model", model, "-o", tmp_path / "v.npz")
    assert done.returncode == 1 and done.stderr.count("the model's output is all zeros") == 3
    assert not (tmp_path / "v.npz").exists()


def zeros(config, seed):
    return {name: x * 0 for name, x in random_tensors(config, seed).items()}
