"""Resolving names to folders, against a fake Hub on this machine."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from helpers.refusals import message
from huggingface_hub import constants, file_download

from mlx_aimv2 import errors
from mlx_aimv2.checkpoints import download as fetch
from mlx_aimv2.checkpoints.resolve import Resolved, is_cached, resolve
from mlx_aimv2.events import Event, Notice, Progress

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the notices of `warn`

LARGE = "apple/aimv2-large-patch14-224"
COMMIT = "ac764a25c832c7dc5e11871daa588e98e3cdbfb7"
TAGGED = "0123456789012345678901234567890123456789"
ORIGINAL = {
    ".gitattributes": b"*.bin lfs",
    "LICENSE": b"terms",
    "README.md": b"card",
    "config.json": b"{}",
    "preprocessor_config.json": b"{ }",
    "processor_config.json": b"{  }",
    "video_preprocessor_config.json": b"{   }",
    "modeling_aimv2.py": b"raise SystemExit",
    "model.safetensors": b"apple" * 1000,
    "mlx_model.safetensors": b"mlx" * 1000,
    "flax_model.msgpack": b"flax",
    "pytorch_model.bin": b"pickle",
    "assets/config.json": b"{}",
}
SMALL = {"LICENSE", "README.md", "config.json", "preprocessor_config.json", "processor_config.json"}
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[0]}}).encode()
SHARDED = {
    "config.json": b"{}",
    "vocab.json": b"{ }",
    "merges.txt": b"",
    "model.safetensors.index.json": INDEX,
    SHARDS[0]: b"first",
    SHARDS[1]: b"second",
}


@dataclass
class Repo:
    """What the fake Hub serves under one name."""

    files: dict[str, bytes]
    card: dict[str, str] = field(default_factory=lambda: {"license": "apple-amlr"})
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT, "v1": TAGGED})
    gated: bool = False
    short: bool = False  # sends less than it announced
    status: int = 200


class FakeHub(ThreadingHTTPServer):
    """The few routes of the Hub that a download uses."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.requests: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def downloaded(self) -> set[str]:
        """Names of the files whose content was asked for."""
        return {
            path.rpartition("/")[2]
            for method, path in self.requests
            if method == "GET" and "/resolve/" in path
        }


class Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path))
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if api else parts
        repo = self.server.repos.get(f"{owner}/{name}")
        if repo is None:
            return self.refuse(404, "RepoNotFound")
        if repo.status != 200:
            return self.refuse(repo.status, "")
        wanted = rest[1] if len(rest) > 1 else "main"
        commit = wanted if wanted in repo.revisions.values() else repo.revisions.get(wanted)
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        if api:
            return self.describe(f"{owner}/{name}", repo, commit)
        if repo.gated:
            return self.refuse(403, "GatedRepo")
        return self.send_file(repo, commit, "/".join(rest[2:]))

    do_HEAD = do_GET

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, b"", {"X-Error-Code": code} if code else {})

    def describe(self, name: str, repo: Repo, commit: str) -> None:
        siblings = [{"rfilename": file, "size": len(data)} for file, data in repo.files.items()]
        info = {
            "id": name,
            "modelId": name,
            "sha": commit,
            "cardData": repo.card,
            "siblings": siblings,
            "tags": [],
        }
        self.answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def send_file(self, repo: Repo, commit: str, name: str) -> None:
        data = repo.files[name]
        headers = {"ETag": f'"{sha256(data).hexdigest()}"', "X-Repo-Commit": commit}
        self.answer(200, data[:-1] if repo.short and self.command == "GET" else data, headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything huggingface_hub writes or reads lies in the test's folder."""
    home = constants.HF_HOME
    for name, value in list(vars(constants).items()):
        if isinstance(value, str) and value.startswith(home):
            monkeypatch.setattr(constants, name, str(tmp_path / "hf") + value[len(home) :])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hf" / "hub"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    server = FakeHub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    for module in (constants, file_download):  # older versions hold a copy in the second
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    server.repos[LARGE] = Repo(dict(ORIGINAL))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
    getattr(huggingface_hub, "close_session", lambda: None)()


def names(found: Resolved) -> set[str]:
    return {path.name for path in found.folder.iterdir()}


# ---- what is downloaded


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


def test_a_short_name_is_a_fixed_commit_and_main_floats(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = "f" * 40
    hub.repos[LARGE].revisions = {"main": newer, "old": COMMIT}
    found = resolve("large-224")
    assert found.revision == COMMIT and found.repo == LARGE
    assert is_cached("large-224") and not is_cached(LARGE, "main")
    assert resolve("large-224", revision="main").revision == resolve(LARGE).revision == newer
    hub.requests.clear()
    assert resolve("aimv2-large-patch14-224") == found and hub.requests == []  # a commit never changes
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve("Large-224") == found
    text = message(errors.OfflineError, lambda: resolve("huge-224"))
    assert text.startswith(
        "apple/aimv2-huge-patch14-224 at revision 9e0bab0e0abb7b20796d2d0b37f39b7c3b1c1af1 is not"
    )


@pytest.mark.parametrize("revision", ["v1", TAGGED])
def test_revisions(hub: FakeHub, revision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolve(LARGE, revision=revision)
    assert found.revision == TAGGED
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve(LARGE, revision=revision) == found
    assert not is_cached(LARGE)


@pytest.mark.parametrize(
    ("card", "files", "end"),
    [
        (
            {"license": "other", "license_name": "own"},
            {},
            "is licensed own: https://huggingface.co/me/x/blob/main/README.md",
        ),
        (
            {},
            {"LICENSE.txt": b""},
            "states no licence: see https://huggingface.co/me/x/blob/main/LICENSE.txt",
        ),
    ],
)
def test_licence_of_other_cards(
    hub: FakeHub, card: dict[str, str], files: dict[str, bytes], end: str
) -> None:
    hub.repos["me/x"] = Repo({"config.json": b"{}", "model.safetensors": b"", **files}, card=card)
    events: list[Event] = []
    resolve("me/x", on_event=events.append)
    assert events[0] == Notice(f"me/x {end}")


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


def test_a_failing_callback_is_heard(hub: FakeHub) -> None:
    def fail(event: Event) -> None:
        raise LookupError("from the callback")

    with pytest.raises(LookupError, match="from the callback"):
        resolve(LARGE, on_event=fail)


# ---- what a repository can lack


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


# ---- what the Hub can refuse


def test_gated_repository(hub: FakeHub) -> None:
    hub.repos[LARGE].gated = True
    assert message(errors.GatedRepositoryError, lambda: resolve(LARGE)) == (
        f"{LARGE} is gated: accept its terms at https://huggingface.co/{LARGE}, then `hf auth login`"
    )


def test_unknown_repository(hub: FakeHub) -> None:
    assert message(errors.RepositoryNotFoundError, lambda: resolve("aple/aimv2-large-patch14-224")) == (
        "no repository aple/aimv2-large-patch14-224 on the Hub, and no such folder here (if it is private: "
        "`hf auth login`): did you mean large-224 or lit or large-448? `mlx-aimv2 models` lists the names; "
        "others are OWNER/NAME"
    )


def test_unknown_revision(hub: FakeHub) -> None:
    assert message(errors.RepositoryNotFoundError, lambda: resolve(LARGE, revision="v9")) == (
        f"{LARGE} has no revision 'v9': see its branches and tags"
    )


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (503, "try again later"),
        (429, "too many requests: wait a few minutes"),
        (403, "access was refused: see `hf auth whoami`"),
    ],
)
def test_other_answers(hub: FakeHub, status: int, advice: str) -> None:
    hub.repos[LARGE].status = status
    assert message(errors.HubError, lambda: resolve(LARGE)) == (
        f"the Hub answered {status} for {LARGE}: {advice}, or give a local folder"
    )


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


def test_cache_below_a_file(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    text = message(errors.HubError, lambda: resolve(LARGE))
    assert text.startswith(
        f"cannot write to the cache {tmp_path / 'file' / 'hub'}: part of that path is not a folder"
    )


# ---- without a network

WAYS = (
    "give a local folder, or run `hf download {0} --local-dir FOLDER` "
    "on a machine with network and copy FOLDER here"
)


def test_offline_with_and_without_the_cache(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    online = resolve(LARGE)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve("large-224") == online
    assert message(errors.OfflineError, lambda: resolve("apple/aimv2-huge-patch14-224")) == (
        "apple/aimv2-huge-patch14-224 is not in the cache, and offline mode is on (HF_HUB_OFFLINE): "
        + WAYS.format("apple/aimv2-huge-patch14-224")
    )
    assert message(errors.OfflineError, lambda: resolve(LARGE, revision="v1")).endswith(
        WAYS.format(f"{LARGE} --revision v1")
    )
    assert hub.requests == []


@pytest.mark.parametrize("missing", [SHARDS[0], "model.safetensors.index.json"])
def test_offline_with_half_a_checkpoint(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    hub.repos["me/sharded"] = Repo(dict(SHARDED))
    (resolve("me/sharded").folder / missing).unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    text = message(errors.OfflineError, lambda: resolve("me/sharded"))
    assert text.startswith("me/sharded is only partly in the cache, and offline mode is on")


def test_refused_connection(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    online = resolve(LARGE)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    events: list[Event] = []
    assert resolve(LARGE, on_event=events.append) == online
    assert events == [Notice(f"the Hub cannot be reached: using the cached copy of {LARGE}")]
    assert message(errors.OfflineError, lambda: resolve("apple/aimv2-large-patch14-native")) == (
        "apple/aimv2-large-patch14-native is not in the cache, and http://127.0.0.1:1 cannot be reached: "
        + WAYS.format("apple/aimv2-large-patch14-native")
    )


def test_something_else_answers(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "describe", lambda self, *args: self.answer(200, b"<html>Log in</html>", {}))
    text = message(errors.OfflineError, lambda: resolve(LARGE))
    assert text.startswith(f"{LARGE} is not in the cache, and ")
    assert hub.url in text


def test_is_cached_uses_no_network(hub: FakeHub) -> None:
    assert not is_cached("large-224")
    resolve(LARGE)
    hub.requests.clear()
    assert is_cached("large-224")
    assert is_cached(LARGE, COMMIT)
    assert not is_cached(LARGE, "v1")
    assert not is_cached("../..")
    assert not is_cached(LARGE, "../x")
    assert hub.requests == []
