"""What counts as a folder, a short name or a repository, before any network is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

from mlx_aimv2 import errors
from mlx_aimv2.checkpoints.files import find_weights
from mlx_aimv2.checkpoints.resolve import Resolved, resolve
from mlx_aimv2.events import Notice

LARGE = "apple/aimv2-large-patch14-224"
NO_FOLDER = "check the path, or give a model name (mlx-aimv2 models)"
OTHERS = "`mlx-aimv2 models` lists the names; others are OWNER/NAME"


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the checkpoint ``mine``, and no Hub to ask."""

    def refuse(*args: object, **kwargs: object) -> None:
        pytest.fail("the network was used")

    monkeypatch.setattr(huggingface_hub, "HfApi", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.safetensors").touch()
    return tmp_path


def refused(kind: type[errors.Aimv2Error], *arguments: object, **options: str) -> str:
    """The message of a refusal, which has to be of exactly this class and one line long."""
    with pytest.raises(kind) as caught:
        resolve(*arguments, **options)  # type: ignore[arg-type]
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["mine", "./mine", "~/mine", "mine/", "mine/../mine"])
def test_an_existing_folder_is_taken_as_it_is(work: Path, name: str) -> None:
    assert resolve(name).folder.samefile(work / "mine")
    assert resolve(Path(name)).folder.samefile(work / "mine") or name.startswith("~")


def test_a_folder_comes_from_no_repository(work: Path) -> None:
    assert resolve("mine") == Resolved(Path("mine"), None, None)
    assert resolve(work / "mine") == Resolved(work / "mine", None, None)


def test_a_folder_has_no_revision() -> None:
    assert refused(errors.InputError, "mine", "main") == (
        "mine is a local folder, which has no revision 'main': leave it out"
    )


def test_a_file_is_not_a_checkpoint() -> None:
    assert refused(errors.InputError, "mine/model.safetensors") == (
        "mine/model.safetensors is not a folder: give the folder that holds it, mine"
    )


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("./none", "none"),
        ("../none", "../none"),
        ("/none/x", "/none/x"),
        ("a/b/c", "a/b/c"),
        ("C:\\m", "C:\\m"),
        ("apple/", "apple"),
    ],
)
def test_a_path_that_is_not_there(name: str, folder: str) -> None:
    assert refused(errors.NotACheckpointError, name) == f"no folder {folder}: {NO_FOLDER}"


def test_home_is_expanded(work: Path) -> None:
    assert refused(errors.NotACheckpointError, "~/none") == f"no folder {work / 'none'}: {NO_FOLDER}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "a checkpoint is a folder or a model name, not ''"),
        ("a\0b", "a checkpoint is a folder or a model name, not 'a\\x00b'"),
        (7, "a checkpoint is a folder or a model name, not int"),
        (None, "a checkpoint is a folder or a model name, not NoneType"),
        ("bad\nname", "no folder 'bad\\nname', and no model has such a name"),
        (
            "https://hf.co/apple/x",
            "https://hf.co/apple/x is a web address: give the repository as OWNER/NAME",
        ),
        ("xyzzy", f"'xyzzy' is neither a folder nor a known model: {OTHERS}"),
        ("litt", f"'litt' is neither a folder nor a known model: did you mean lit? {OTHERS}"),
        ("a--b/c", f"'a--b/c' is not a valid repository name: {OTHERS}"),
    ],
)
def test_what_names_nothing(name: object, text: str) -> None:
    assert refused(errors.InputError, name) == text


@pytest.mark.parametrize(
    "name", ["a.git", "x/y.git", "-a/b", "a/b-", "a..b/c", "a b/c", "a/" + "b" * 95, "é/x"]
)
def test_names_the_hub_does_not_allow(name: str) -> None:
    assert refused(errors.InputError, name).endswith(OTHERS)


@pytest.mark.parametrize("revision", ["../x", "", "a b", "-x", "a/../../b"])
def test_revisions_that_cannot_be(revision: str) -> None:
    assert refused(errors.InputError, LARGE, revision) == (
        f"{revision!r} is not the name of a branch or tag, nor a commit"
    )


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.npz.pkl", "", "sub/model.safetensors"])
def test_weights_must_name_a_weight_file(weights: str) -> None:
    assert refused(errors.InputError, LARGE, weights=weights) == (
        f"weights must name a .safetensors, .npz or .msgpack file, not {weights!r}"
    )


def test_importing_is_light() -> None:
    code = "import sys, mlx_aimv2.checkpoints.resolve; print({'mlx', 'numpy', 'huggingface_hub'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert ran.stdout.strip() == "set()"


# --- a folder or a file that has the name of a known model


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("lit", "apple/aimv2-large-patch14-224-lit"),
        ("large-224", "apple/aimv2-large-patch14-224"),
        ("timm-large-224", "timm/aimv2_large_patch14_224.apple_pt"),
    ],
)
def test_a_folder_with_weights_goes_before_a_short_name_and_both_are_named(
    work: Path, name: str, model: str
) -> None:
    (work / "mine").rename(work / name)
    told: list[object] = []
    assert resolve(name, on_event=told.append) == Resolved(Path(name), None, None)
    assert told == [
        Notice(
            f"the folder {name} is used, and not the model {model}: ./{name} means the folder, {model} means the"
            " model"
        )
    ]
    for other in (f"./{name}", f"{name}/", Path(name), work / name):
        assert resolve(other, on_event=lambda event: pytest.fail(str(event))).folder.samefile(work / name)


def test_a_folder_with_the_whole_name_of_a_repository(work: Path) -> None:
    model = "apple/aimv2-large-patch14-224"
    (work / "apple").mkdir()
    (work / "mine").rename(work / model)
    told: list[object] = []
    assert resolve(model, on_event=told.append).repo is None
    assert told == [
        Notice(
            f"the folder {model} is used, and not the model {model}: ./{model} means the folder, rename the folder to"
            " have the model"
        )
    ]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_checkpoint_gives_way_to_the_model(work: Path, kind: str) -> None:
    (work / "demo").mkdir() if kind == "folder" else (work / "demo").touch()
    if kind == "folder":  # vectors, and no configuration beside them
        for name in ("cats.npz", "dogs.npz", "cats.safetensors", "dogs.safetensors"):
            (work / "demo" / name).touch()
    told: list[object] = []
    assert resolve("demo", on_event=told.append).bundled
    what = "the folder demo, which is no checkpoint" if kind == "folder" else "the file demo"
    assert told == [
        Notice(f"the checkpoint inside the package is used, and not {what}: ./demo means what is here")
    ]
    with pytest.raises((errors.InputError, errors.NotACheckpointError)):
        find_weights(resolve("./demo").folder)


def test_a_folder_of_any_other_name_is_taken_without_a_word(work: Path) -> None:
    (work / "empty").mkdir()
    assert resolve("empty", on_event=lambda event: pytest.fail(str(event))).folder == Path("empty")
