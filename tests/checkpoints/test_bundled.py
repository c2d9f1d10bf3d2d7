"""The checkpoint `demo` inside the package: found by its name alone, called by it, the same on every machine."""

import json

import huggingface_hub
import pytest
from drawn_world.untrained import write_checkpoint
from mlx.utils import tree_flatten

from mlx_aimv2 import Embedder, convert, load
from mlx_aimv2.checkpoints import bundled
from mlx_aimv2.checkpoints.resolve import Resolved, resolve
from mlx_aimv2.describe import describe_checkpoint
from mlx_aimv2.errors import CheckpointError, InputError, NotACheckpointError
from mlx_aimv2.events import Notice
from mlx_aimv2.loading import inspect

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the notices of `warn`

LARGEST = 8_000_000  # bytes that it may add to the package


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """A small packed checkpoint in the place of the one inside the package, and no Hub to ask."""

    def refuse(*_, **__):
        pytest.fail("the network was used")

    monkeypatch.setattr(huggingface_hub, "HfApi", refuse)
    write_checkpoint(tmp_path / "plain", layout="mlx")
    folder = convert(tmp_path / "plain", tmp_path / "package", quantize=True, q_bits=8, q_group_size=32)
    monkeypatch.setattr(bundled, "CHECKPOINT", folder)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


@pytest.mark.parametrize("name", ["demo", "DEMO", " demo "])
def test_the_name_is_enough(inside, name):
    found = resolve(name)
    assert found == Resolved(inside, None, None, bundled=True)
    assert found.name == "demo"


def test_a_folder_of_that_name_comes_first_and_is_told_of(inside, tmp_path):
    (tmp_path / "work" / "demo").mkdir()
    (tmp_path / "work" / "demo" / "model.safetensors").touch()
    told = []
    found = resolve("demo", on_event=told.append)
    assert found.folder.samefile(tmp_path / "work" / "demo")
    assert not found.bundled
    assert told == [
        Notice(
            "the folder demo is used, and not the checkpoint inside the package: ./demo means the folder, rename the"
            " folder to have the model"
        )
    ]


def test_a_file_of_that_name_does_not_matter(inside, tmp_path):
    (tmp_path / "work" / "demo").touch()
    assert resolve("demo").bundled


def test_it_has_no_revision(inside):
    with pytest.raises(InputError) as caught:
        resolve("demo", "main")
    assert str(caught.value) == "demo lies inside the package and has no revision 'main': leave it out"


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_an_installation_without_it_says_so_in_one_line(inside, missing):
    (inside / missing).unlink()
    with pytest.raises(NotACheckpointError) as caught:
        load("demo")
    assert str(caught.value) == (
        "this installation lacks the checkpoint demo, which comes with the package: install mlx-aimv2 again,"
        " or name another model (mlx-aimv2 models)"
    )
    assert bundled.bundled_sizes() is None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 64])
def test_a_damaged_one_has_no_sizes_and_loading_it_says_why(inside, name, content):
    (inside / name).write_bytes(content)
    assert bundled.bundled_sizes() is None
    with pytest.raises(CheckpointError):
        load("demo")


def test_nothing_made_with_it_names_a_folder(inside):
    model, processor = load("demo")
    assert model.origin.name == "demo"
    fingerprint = Embedder(model, processor).fingerprint
    assert fingerprint["name"] == "demo"
    assert str(inside.parent) not in json.dumps(fingerprint)
    assert describe_checkpoint(inspect("demo"))["source"] == "demo"


def test_unpacking_it_is_nothing_to_be_told_of(inside):
    told = []
    load("demo", on_event=told.append)
    assert not [event for event in told if isinstance(event, Notice) and "unpacked" in event.message]


def test_sizes_are_those_of_the_files(inside):
    sizes, facts = bundled.bundled_sizes(), describe_checkpoint(inspect("demo"))
    assert sizes.parameters == facts["parameters"]
    assert sizes.num_patches == 16
    assert sizes.nbytes == (inside / "model.safetensors").stat().st_size
    assert sizes.bytes_at(16) == 2 * sizes.parameters
    assert 0 < sizes.quantizable < sizes.parameters


def test_sizes_of_plain_weights(inside, tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "CHECKPOINT", tmp_path / "plain")
    sizes = bundled.bundled_sizes()
    assert sizes.quantizable == 0
    assert sizes.parameters == describe_checkpoint(inspect(tmp_path / "plain"))["parameters"]


def test_a_conversion_of_it_says_what_it_came_from(inside, tmp_path):
    card = (
        convert("demo", tmp_path / "out", quantize=True, q_bits=4, q_group_size=32) / "README.md"
    ).read_text()
    assert "from the checkpoint `demo` inside the package mlx-aimv2" in card
    assert str(inside.parent) not in card


def test_the_real_one_is_small_and_complete():
    files = [path for path in bundled.CHECKPOINT.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LARGEST
    names = {path.name for path in files}
    assert names >= {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "LICENSE"}
    facts = describe_checkpoint(inspect(bundled.CHECKPOINT))
    assert facts["problem"] is None
    assert facts["missing_files"] == []
    assert facts["kind"] == "image-text pair"
    vision = load("demo")[0].vision_model
    assert vision.config.patch_size == 14
    assert vision.config.use_head
    assert 4e6 <= sum(x.size for _, x in tree_flatten(vision.parameters())) <= 8e6
