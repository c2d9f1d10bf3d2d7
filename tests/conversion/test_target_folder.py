"""The folder of a new checkpoint: its other files, and what it may replace."""

import json
import shutil

import pytest

from mlx_aimv2 import Aimv2Model, convert, load
from mlx_aimv2.conversion.options import ConvertOptions
from mlx_aimv2.errors import (
    DamagedFileError,
    ExistsError,
    InputError,
    OutputError,
)


def test_the_other_files_come_along_and_no_others(tiny_pair, tmp_path):
    source = shutil.copytree(tiny_pair, tmp_path / "source")
    for name in ("LICENSE", "README.md", "training_args.bin", "notes.txt"):
        (source / name).write_text(name)
    folder = convert(source, tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {
        "LICENSE",
        "README.md",
        "config.json",
        "merges.txt",
        "model.safetensors",
        "preprocessor_config.json",
        "special_tokens_map.json",
        "tokenizer_config.json",
        "vocab.json",
    }
    for name in ("LICENSE", "vocab.json", "preprocessor_config.json"):
        assert (folder / name).read_bytes() == (source / name).read_bytes()


def test_what_described_only_the_source_is_left_behind(tiny_pair, tmp_path):
    source = shutil.copytree(tiny_pair, tmp_path / "source")
    data = json.loads((source / "config.json").read_text())
    data |= {"auto_map": {"AutoModel": "x"}, "torch_dtype": "float32", "note": "kept"}
    data["_name_or_path"] = data["vision_config"]["_name_or_path"] = "/home/somebody/model"
    (source / "config.json").write_text(json.dumps(data))
    text = (convert(source, tmp_path / "out", dtype="float16") / "config.json").read_text()
    assert "somebody" not in text
    written = json.loads(text)
    assert "auto_map" not in written and "torch_dtype" not in written
    assert (written["note"], written["dtype"]) == ("kept", "float16")


def test_a_small_file_that_is_large_is_refused(tiny_pair, tmp_path):
    source = shutil.copytree(tiny_pair, tmp_path / "source")
    with (source / "LICENSE").open("wb") as file:
        file.truncate(2**27)
    with pytest.raises(DamagedFileError, match="LICENSE is over 64 MB: remove it"):
        convert(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [source]


def test_other_files_named_like_a_licence_stay_behind(tiny_pair, tmp_path):
    source = shutil.copytree(tiny_pair, tmp_path / "source")
    for name in ("LICENSE", "LICENSE.txt", "LICENSE-private.pem"):
        (source / name).write_text("words")
    folder = convert(source, tmp_path / "out")
    assert {path.name for path in folder.iterdir() if "LICENSE" in path.name} == {"LICENSE", "LICENSE.txt"}


def test_an_existing_folder_is_refused(tiny_vision, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="out exists already: name another, or replace it with force=True"):
        convert(tiny_vision, tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]


FORCE = ConvertOptions(force=True)


@pytest.mark.parametrize("linked", [False, True])
def test_a_checkpoint_is_replaced_when_asked(tiny_vision, tiny_pair, tmp_path, linked):
    place = tmp_path / "out"
    convert(tiny_vision, tmp_path / "real" if linked else place)
    if linked:
        place.symlink_to("real")
    convert(tiny_pair, place, options=FORCE)
    assert isinstance(load(place)[0], Aimv2Model) and place.is_symlink() == linked
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["out", *["real"] * linked])


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["holiday.jpg"], "holiday.jpg"),
        (["config.json", "work"], "work"),
        (["README.md", "LICENSE"], "LICENSE"),
    ],
)
def test_nothing_but_a_checkpoint_is_replaced(tiny_vision, tmp_path, files, named):
    for name in files:
        (tmp_path / "out" / name).mkdir(parents=True)
    message = f"out holds {named}, and --force replaces nothing but a checkpoint: name another folder"
    with pytest.raises(ExistsError, match=message):
        convert(tiny_vision, tmp_path / "out", options=FORCE)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(files)


def test_a_file_is_not_replaced_by_a_folder(tiny_vision, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ExistsError, match="out is not a folder: name another"):
        convert(tiny_vision, tmp_path / "out", options=FORCE)


def test_the_source_is_not_replaced(tiny_pair, tmp_path):
    source = shutil.copytree(tiny_pair, tmp_path / "source")
    (tmp_path / "link").symlink_to("source")
    for target in (source, tmp_path / "link"):
        with pytest.raises(InputError, match="is the source: name another folder"):
            convert(source, target, options=FORCE)
    assert isinstance(load(source)[0], Aimv2Model)


def test_the_source_is_not_its_own_target(tiny_vision):
    with pytest.raises(OutputError, match="exists already"):
        convert(tiny_vision, tiny_vision)
