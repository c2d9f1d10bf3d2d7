"""`mlx-aimv2 fuse`, and `export` with an adapter."""

import json

import pytest
from drawn_world.untrained import write_checkpoint

from mlx_aimv2 import convert, load
from mlx_aimv2.conversion.options import ConvertOptions
from mlx_aimv2.quantization.scheme import Scheme

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the notices of `warn`


def test_an_adapter_is_fused(cli, pair, adapter, tmp_path):
    out = tmp_path / "out"
    done = cli("fuse", "--model", pair, "--adapter-path", adapter, "--save-path", out)
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert (
        f"wrote {out}; its head: --model {out} --adapter-path {out}; try: mlx-aimv2 info {out}" in done.stderr
    )
    facts = json.loads(cli("info", out, "--json").stdout)
    assert facts["layout"] == "mlx" and facts["problem"] is None
    assert load(out, adapter_path=out)[0].labels == ("cat", "dog")


def test_a_fused_checkpoint_is_the_base_of_its_own_head_wherever_it_lies(
    cli, pair, adapter, photos, tmp_path
):
    assert cli("fuse", "--adapter-path", adapter, "--save-path", tmp_path / "out").returncode == 0
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    done = cli("classify", photos / "0.png", "--adapter-path", moved, "--json")
    assert done.returncode == 0 and f"the base is {moved}, as {moved} says" in done.stderr
    assert {each["label"] for each in json.loads(done.stdout)[0]["predictions"]} == {"cat", "dog"}


def test_a_quantized_base_may_become_plain(cli, pair, with_adapter, tmp_path):
    base = convert(pair, tmp_path / "q", options=ConvertOptions(scheme=Scheme(32, 8)))
    with pytest.warns(UserWarning, match="were unpacked"):
        with_adapter(base, tmp_path / "a")
    arguments = ("fuse", "--model", base, "--adapter-path", tmp_path / "a", "--save-path")
    done = cli(*arguments, tmp_path / "packed")
    assert (
        done.returncode == 0 and "quantized again, which rounds what was learned: --dequantize" in done.stderr
    )
    assert "quantization" in json.loads((tmp_path / "packed" / "config.json").read_text())
    done = cli(*arguments, tmp_path / "plain", "--dequantize")
    assert done.returncode == 0 and "rounds" not in done.stderr
    assert "quantization" not in json.loads((tmp_path / "plain" / "config.json").read_text())


def test_another_base_is_refused_unless_asked_for(cli, adapter, tmp_path):
    other = write_checkpoint(tmp_path / "other", seed=9)
    arguments = ("fuse", "--model", other, "--adapter-path", adapter, "--save-path", tmp_path / "out")
    done = cli(*arguments)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"and this is {other}" in done.stderr and "--any-base" in done.stderr
    assert not (tmp_path / "out").exists()
    assert cli(*arguments, "--any-base").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["fuse", "--adapter-path", "nowhere"], 1, "nowhere: there is no such folder"),
        (["fuse", "--adapter-path", "ADAPTER", "--dequantize"], 2, "there is nothing to dequantize"),
        (["fuse", "--adapter-path", "ADAPTER", "--max-shard-size", "much"], 2, "'much' is not a size"),
        (["export", "--any-base"], 2, "--any-base needs --adapter-path"),
    ],
)
def test_what_cannot_be_is_one_line(cli, pair, adapter, tmp_path, arguments, status, message):
    verb, *others = [adapter if one == "ADAPTER" else one for one in arguments]
    out = tmp_path / "out"
    place = ["--model", pair, "--save-path", out] if verb == "fuse" else [pair, out]
    done = cli(verb, *place, *others)
    assert done.returncode == status and message in done.stderr and done.stderr.count("\n") == 1
    assert not out.exists()
