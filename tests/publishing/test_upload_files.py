"""The files of an upload."""

from __future__ import annotations

import pytest
from helpers.refusals import message

import mlx_aimv2
from mlx_aimv2 import errors
from mlx_aimv2.conversion.options import ConvertOptions
from mlx_aimv2.publishing.upload_files import prepare_upload


def test_shards_go_with_their_index(pair, tmp_path):
    options = ConvertOptions(max_shard_bytes=60_000)
    folder = mlx_aimv2.convert(pair, tmp_path / "shards", options=options)
    names = list(prepare_upload(folder).sizes)
    assert "model.safetensors.index.json" in names
    assert sum(name.endswith(".safetensors") for name in names) > 1
    assert prepare_upload(folder).left == ()


def test_a_folder_that_is_none(tmp_path):
    text = message(errors.InputError, lambda: prepare_upload(tmp_path / "none"))
    assert text == f"{tmp_path / 'none'} is not a folder: give the one that `mlx-aimv2 convert` wrote"
    assert "is not a folder" in message(errors.InputError, lambda: prepare_upload("lit"))


def test_another_layout(tiny_pair):
    assert message(errors.InputError, lambda: prepare_upload(tiny_pair)) == (
        f"{tiny_pair} is in the layout apple, which is not this package's: upload what"
        f" `mlx-aimv2 convert --hf-path {tiny_pair} --mlx-path FOLDER` writes"
    )


def test_no_checkpoint(tmp_path):
    assert "is no checkpoint" in message(errors.NotACheckpointError, lambda: prepare_upload(tmp_path))


def test_half_a_checkpoint(own):
    (own / "vocab.json").unlink()
    text = message(errors.InputError, lambda: prepare_upload(own))
    assert text.startswith(f"{own} is not whole: ")
    assert text.endswith("; convert it again")


@pytest.mark.parametrize("card", [None, "---\nlibrary_name: mlx\ntags: [mlx]\n---\n", "about my holidays"])
def test_a_card_of_somebody_else(own, card):
    (own / "README.md").unlink()
    if card is not None:
        (own / "README.md").write_text(card)
    assert message(errors.InputError, lambda: prepare_upload(own)) == (
        f"{own} has no README.md that `mlx-aimv2 convert` wrote (tagged mlx-aimv2): convert its source again, and"
        " what is uploaded says where it came from and under which licence"
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "README.md"])
def test_links_in_place_of_needed_files(own, name):
    (own / name).rename(own / f"real-{name}")
    (own / name).symlink_to(f"real-{name}")
    assert message(errors.InputError, lambda: prepare_upload(own)) == (
        f"{own / name} is a link or no file: upload the folder that convert wrote"
    )


def test_links_out_of_the_folder(own):
    (own / "LICENSE").unlink()
    (own / "LICENSE").symlink_to("/etc/hostname")
    with pytest.raises(errors.Aimv2Error, match="LICENSE is a link out of its folder"):
        prepare_upload(own)
