"""Downloads of checkpoints: the files that are taken, progress, and everything that can go wrong."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import huggingface_hub
import pytest
from helpers.fake_hub import COMMIT, LARGE, ORIGINAL, SHARDED, SHARDS, SMALL, FakeHub, Repo
from helpers.refusals import message

from mlx_aimv2 import errors
from mlx_aimv2.checkpoints import download as fetch
from mlx_aimv2.checkpoints.resolve import Resolved, is_cached, resolve
from mlx_aimv2.events import Event, Notice, Progress

pytestmark = [
    pytest.mark.usefixtures("cache"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # the notices of `warn`
]


def names(found: Resolved) -> set[str]:
    return {path.name for path in found.folder.iterdir()}


def test_original_era_repository_gives_only_the_needed_files(
    hub: FakeHub, capfd: pytest.CaptureFixture[str]
) -> None:
    events: list[Event] = []
    found = resolve(LARGE, on_event=events.append)
    assert (found.repo, found.revision) == (LARGE, COMMIT)
    assert names(found) == hub.downloaded() == {*SMALL, "model.safetensors"}
    assert (found.folder / "model.safetensors").read_bytes() == ORIGINAL["model.safetensors"]
    licence = f"{LARGE} is licensed apple-amlr (research use only): https://huggingface.co/{LARGE}/blob/main/LICENSE"
    assert events[0] == Notice(licence)
    assert events[1] == Progress("download", 0, 5000, unit="bytes")
    assert events[-1] == Progress("download", 5000, 5000, unit="bytes")
    assert capfd.readouterr() == ("", "")


def test_a_cached_checkpoint_is_not_downloaded_again(hub: FakeHub) -> None:
    first = resolve(LARGE)
    hub.requests.clear()
    events: list[Event] = []
    assert resolve(LARGE, on_event=events.append) == first
    assert [path for _, path in hub.requests] == [f"/api/models/{LARGE}"]
    assert events == []


def test_the_second_copy_comes_only_when_asked_for_or_alone(hub: FakeHub) -> None:
    assert names(resolve(LARGE, weights="mlx_model.safetensors")) == {*SMALL, "mlx_model.safetensors"}
    hub.repos["me/mlx"] = Repo(
        {"config.json": b"{}", "mlx_model.safetensors": b"mlx", "pytorch_model.bin": b""}
    )
    assert names(resolve("me/mlx")) == {"config.json", "mlx_model.safetensors"}


def test_shards_are_those_of_the_index(hub: FakeHub) -> None:
    hub.repos["me/sharded"] = Repo({**SHARDED, "model-00003-of-00003.safetensors": b"stray"})
    events: list[Event] = []
    found = resolve("me/sharded", on_event=events.append)
    assert names(found) == set(SHARDED)
    assert events[-1] == Progress("download", 11, 11, unit="bytes")


def test_an_interrupted_download_is_completed(hub: FakeHub) -> None:
    hub.repos["me/sharded"] = Repo(dict(SHARDED))
    (resolve("me/sharded").folder / SHARDS[1]).unlink()
    assert not is_cached("me/sharded")
    events: list[Event] = []
    assert names(resolve("me/sharded", on_event=events.append)) == set(SHARDED)
    assert events[1] == Progress("download", 5, 11, unit="bytes")
    assert is_cached("me/sharded")


def test_progress_while_a_file_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_POLL_S", 0.005)
    (tmp_path / "stale.incomplete").write_bytes(b"left by an earlier run")
    events: list[Event] = []
    seen = threading.Event()

    def on_event(event: Event) -> None:
        events.append(event)
        if event == Progress("download", 40, 100, "bytes"):
            seen.set()

    with fetch._Meter(tmp_path, 10, 100, on_event) as meter:
        (tmp_path / "new.incomplete").write_bytes(b"x" * 30)
        assert seen.wait(5)
        (tmp_path / "new.incomplete").unlink()
        meter.finished(90)
    done = [event.done for event in events if isinstance(event, Progress)]
    assert done[0] == 10
    assert done == sorted(done)  # a poll between the file's making and its writing may see it empty
    assert done[-1] == 100


@pytest.mark.parametrize(
    ("files", "kind", "text"),
    [
        (
            {"config.json": b"{}", "pytorch_model.bin": b""},
            errors.PickleRefusedError,
            "me/x holds only pickled weights (pytorch_model.bin), which can run code when opened: have "
            "https://huggingface.co/spaces/safetensors/convert make a model.safetensors of them, "
            "or take a revision that has one",
        ),
        (
            {"config.json": b"{}", "model.onnx": b""},
            errors.NotACheckpointError,
            "me/x is no checkpoint: looked for model.safetensors, model.safetensors.index.json with its shards, "
            "mlx_model.safetensors, model.npz, weights.npz, flax_model.msgpack; found config.json, model.onnx",
        ),
        (
            {"model.safetensors": b""},
            errors.NotACheckpointError,
            "me/x is no checkpoint: it has model.safetensors and no config.json",
        ),
        (
            {},
            errors.NotACheckpointError,
            "me/x is no checkpoint: looked for model.safetensors, model.safetensors.index.json with its shards, "
            "mlx_model.safetensors, model.npz, weights.npz, flax_model.msgpack; found nothing",
        ),
        (
            {key: data for key, data in SHARDED.items() if key != SHARDS[1]},
            errors.HubError,
            f"me/x lacks {SHARDS[1]}, which its model.safetensors.index.json names",
        ),
    ],
)
def test_repositories_without_usable_weights(
    hub: FakeHub, files: dict[str, bytes], kind: type[errors.Aimv2Error], text: str
) -> None:
    hub.repos["me/x"] = Repo(files)
    assert message(kind, lambda: resolve("me/x")) == text
    assert not {name for name in hub.downloaded() if name.endswith((".bin", ".msgpack", ".safetensors"))}


@pytest.mark.parametrize(
    ("names", "weights", "chosen"),
    [
        (["weights.npz", "flax_model.msgpack"], None, "weights.npz"),
        (["flax_model.msgpack", "pytorch_model.bin"], None, "flax_model.msgpack"),
        (["model.safetensors", "flax_model.msgpack", "x.npz"], "flax_model.msgpack", "flax_model.msgpack"),
        (["model.safetensors", "flax_model.msgpack", "x.npz"], "x.npz", "x.npz"),
    ],
)
def test_other_weights_are_had_where_nothing_else_is_or_they_are_named(hub, names, weights, chosen) -> None:
    hub.repos["me/x"] = Repo({"config.json": b"{}", **dict.fromkeys(names, b"x")})
    folder = resolve("me/x", weights=weights).folder
    assert {path.name for path in folder.iterdir()} == {"config.json", chosen}
    assert resolve("me/x", weights=weights, revision=folder.name).folder == folder


@pytest.mark.parametrize(
    ("index", "end"),
    [
        (b"not json", "is not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        (b'{"weight_map": {"a": 1}}', "names 1, which is not a safetensors file beside it"),
        (
            b'{"weight_map": {"a": "../x.safetensors"}}',
            "names '../x.safetensors', which is not a safetensors file beside it",
        ),
        (b'{"weight_map": {}}', "is not an index of safetensors shards: no weight_map in it"),
    ],
)
def test_damaged_index(hub: FakeHub, index: bytes, end: str) -> None:
    hub.repos["me/x"] = Repo({**SHARDED, "model.safetensors.index.json": index})
    assert message(errors.DamagedFileError, lambda: resolve("me/x")).endswith(
        f"model.safetensors.index.json {end}"
    )
    assert not is_cached("me/x")


def test_weights_that_the_repository_lacks(hub: FakeHub) -> None:
    text = message(errors.NotACheckpointError, lambda: resolve(LARGE, weights="other.safetensors"))
    assert "lacks the weight file other.safetensors: found" in text


def test_content_shorter_than_announced(hub: FakeHub) -> None:
    hub.repos[LARGE].short = True
    text = message(errors.HubError, lambda: resolve(LARGE))
    assert text.startswith(f"the download of {LARGE} failed: Consistency check failed")
    assert not is_cached(LARGE)


def test_no_room(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    assert message(errors.HubError, lambda: resolve(LARGE)) == (
        f"no room for {LARGE} in {cache}: 5 kB needed, 10 bytes free: "
        "free some, or set HF_HOME to a folder on another disk"
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [(errno.ENOSPC, "the disk is full: free some room"), (errno.EROFS, "it may not be written")],
)
def test_failing_disk(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch, number: int, text: str
) -> None:
    def fail(*args: object, **kwargs: object) -> str:
        raise OSError(number, "as the system says")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    assert message(errors.HubError, lambda: resolve(LARGE)).startswith(
        f"cannot write to the cache {cache}: {text}"
    )
