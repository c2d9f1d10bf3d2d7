"""`mlx-aimv2 convert` and `python convert.py`, as their users run them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from drawn_world.untrained import write_checkpoint

from mlx_aimv2.errors import InputError

ROOT = Path(__file__).parents[2]


def rows(stdout):
    return dict(line.split("\t", 1) for line in stdout.splitlines() if "\t" in line)


def test_a_checkpoint_is_converted_quantized_and_compared(cli, pair, photos, tmp_path):
    out = tmp_path / "out"
    done = cli(
        "convert", "--hf-path", pair, "--mlx-path", out, "-q", "--q-bits", 8, "--q-group-size", 32,
        "--report-images", photos,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert found["checkpoint"] == f"{pair}\t{out}"
    assert found["stored as"] == "float32\t8-bit affine, groups of 32"
    assert float(found["image cosine, least"].strip()) > 0.99
    assert "small or sensitive tensors are not quantized: the model card names them" in done.stderr
    assert f"wrote {out}: " in done.stderr and "bits per weight" in done.stderr
    card = (out / "README.md").read_text()
    assert "## Fidelity" in card and "on 3 images" in card and "8-bit affine" in card
    assert card.count("## Fidelity") == 1
    assert "- norms are small and sensitive: `vision_model.embeddings.rms_norm.weight, " in card
    assert "vision_model.encoder.layers.{0-2}.rms_norm1.weight" in card


def test_calibrating_from_the_command_line(cli, pair, photos, tmp_path):
    out = tmp_path / "out"
    arguments = ("convert", "--hf-path", pair, "--mlx-path", out, "-q", "--q-group-size", 32)
    done = cli(*arguments, "--calibrate", photos)
    assert done.returncode == 0, done.stderr
    assert "calibrated" in (out / "README.md").read_text()
    assert cli("embed", photos, "--model", out).returncode == 0


def test_npz_is_written_and_read(cli, pair, photos, tmp_path):
    out = tmp_path / "out"
    done = cli("convert", "--hf-path", pair, "--mlx-path", out, "--format", "npz")
    assert done.returncode == 0, done.stderr
    assert (out / "model.npz").is_file() and not (out / "model.safetensors").exists()
    vectors = [json.loads(cli("embed", photos / "0.png", "--model", model).stdout) for model in (pair, out)]
    assert vectors[0]["embedding"] == pytest.approx(vectors[1]["embedding"], abs=1e-6)


def test_a_dry_run_writes_nothing(cli, pair, tmp_path):
    done = cli(
        "convert", "--hf-path", pair, "--mlx-path", tmp_path / "out", "-q", "--q-group-size", 32, "--dry-run"
    )
    assert done.returncode == 0, done.stderr
    assert "4-bit affine" in done.stdout and "(norms are small and sensitive)" in done.stdout
    assert "layout apple" in done.stderr and "nothing was written" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--q-bits", "4"], "--q-bits says how to quantize, and nothing is quantized without -q"),
        (
            ["--q-group-size", "64"],
            "--q-group-size says how to quantize, and nothing is quantized without -q",
        ),
        (["--q-mode", "affine"], "--q-mode says how to quantize, and nothing is quantized without -q"),
        (["--quant-predicate", "mixed_4_6"], "--quant-predicate says how to quantize, and nothing is"),
        (["--calibrate", "photos"], "--calibrate says how to quantize, and nothing is quantized without -q"),
        (
            ["-d", "--q-bits", "4", "--q-group-size", "32"],
            "--q-bits and --q-group-size say how to quantize, and nothing is quantized without -q (in Python,"
            " quantize=True): add it, or leave --q-bits and --q-group-size out",
        ),
        (
            ["-q", "--q-bits", "7"],
            "mode affine has no 7 bits in groups of 64: bits 2, 3, 4, 5, 6, 8 in groups of",
        ),
        (
            ["-q", "--q-mode", "mxfp4", "--q-group-size", "64"],
            "mode mxfp4 has no 4 bits in groups of 64: bits 4 in",
        ),
        (["-q", "--q-mode", "int4"], "quantization mode 'int4' is not one of affine, mxfp4, nvfp4, mxfp8"),
        (
            ["-q", "--quant-predicate", "mixed_4_6", "--q-bits", "4"],
            "sets the bits: leave q_bits (--q-bits) out",
        ),
        (
            ["-q", "--quant-predicate", "mixed_4_6", "--q-mode", "mxfp4"],
            "the recipe mixed_4_6 is for affine quantization",
        ),
        (["-q", "--calibrate", "photos"], "no images"),
        (
            ["--format", "npz", "--max-shard-size", "1GB"],
            "--format npz is one file: leave --max-shard-size out",
        ),
        (["-q", "--q-bits", "0"], "mode affine has no 0 bits"),
        (["--format", "zip"], "format 'zip' is not one of safetensors, npz"),
        (["--private"], "--private needs --upload-repo"),
        (["--upload-repo", "no-owner"], "'no-owner' is not the name of a repository: give OWNER/NAME"),
    ],
)
def test_what_cannot_be_is_one_line(cli, pair, tmp_path, arguments, message):
    if "photos" in arguments:
        (tmp_path / "photos").mkdir()
        arguments = [*arguments[:-1], str(tmp_path / "photos")]
    done = cli("convert", "--hf-path", pair, "--mlx-path", tmp_path / "out", *arguments)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_broken_image_is_named_and_the_status_says_so(cli, pair, photos, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    done = cli(
        "convert", "--hf-path", pair, "--mlx-path", tmp_path / "out", "-q", "--q-group-size", 32,
        "--calibrate", tmp_path / "broken.png", "--calibrate", photos,
    )  # fmt: skip
    assert done.returncode == 1 and f"skipped {tmp_path / 'broken.png'}" in done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_comparison_that_fails_costs_only_itself(cli, pair, photos, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    done = cli(
        "convert", "--hf-path", pair, "--mlx-path", tmp_path / "out",
        "--report-images", tmp_path / "broken.png", "--report-images", photos / "0.png",
    )  # fmt: skip
    assert done.returncode == 1
    assert "result and source were not compared: a comparison needs at least two images" in done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()
    early = cli(
        "convert", "--hf-path", pair, "--mlx-path", tmp_path / "b", "--report-images", photos / "0.png"
    )
    assert early.returncode == 2 and "needs at least two images" in early.stderr
    assert not (tmp_path / "b").exists()


def test_json_has_the_plan_and_the_comparison(cli, pair, photos, tmp_path):
    arguments = (
        "convert",
        "--hf-path",
        pair,
        "--mlx-path",
        tmp_path / "out",
        "-q",
        "--q-group-size",
        32,
        "--json",
    )
    plan = json.loads(cli(*arguments, "--dry-run").stdout)
    assert plan["layout"] == "apple" and plan["quantization"] == "4-bit affine, groups of 32"
    assert (
        plan["not_quantized"]["visual_projection.weight"] == "the projections make the embeddings themselves"
    )
    done = json.loads(cli(*arguments, "--report-images", photos).stdout)
    assert done["path"] == str(tmp_path / "out") and done["bytes"] == plan["bytes"]
    assert done["fidelity"]["images"] == 3


def test_an_upload_is_refused_before_the_work(cli_process, pair, tmp_path):
    done = cli_process(
        "convert", "--hf-path", pair, "--mlx-path", tmp_path / "out", "--upload-repo", "somebody/aimv2-4bit"
    )
    assert done.returncode == 1 and "offline mode is on (HF_HUB_OFFLINE)" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_source_in_the_middle_of_nowhere_is_one_line(cli, tmp_path):
    done = cli("convert", "--hf-path", tmp_path / "missing", "--mlx-path", tmp_path / "out")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "missing: check the path" in done.stderr


def test_the_script_is_the_verb(tmp_path):
    source = write_checkpoint(tmp_path / "source")
    done = subprocess.run(
        [sys.executable, ROOT / "convert.py", "--hf-path", source, "--mlx-path", tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and (tmp_path / "out" / "model.safetensors").is_file(), done.stderr


def test_sizes_of_shards_have_units():
    from mlx_aimv2.cli.convert import parse_size

    assert [parse_size(text) for text in ("5GB", "500 mb", "12", "1.5k")] == [5 * 10**9, 5 * 10**8, 12, 1500]
    for text in ("", "GB", "-1", "0", "5XB"):
        with pytest.raises(InputError, match="is not a size: write 5GB or 500MB"):
            parse_size(text)
