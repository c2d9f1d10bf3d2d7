"""Resolving names to folders, against a fake Hub on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.fake_hub import COMMIT, LARGE, SHARDED, SHARDS, TAGGED, FakeHub, Handler, Repo
from helpers.refusals import message
from huggingface_hub import constants

from mlx_aimv2 import errors
from mlx_aimv2.checkpoints.resolve import is_cached, resolve
from mlx_aimv2.events import Event, Notice

pytestmark = [
    pytest.mark.usefixtures("cache"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # the notices of `warn`
]


# ---- what is downloaded


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


def test_a_failing_callback_is_heard(hub: FakeHub) -> None:
    def fail(event: Event) -> None:
        raise LookupError("from the callback")

    with pytest.raises(LookupError, match="from the callback"):
        resolve(LARGE, on_event=fail)


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
