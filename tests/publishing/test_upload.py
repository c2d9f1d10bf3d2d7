"""Uploading, against a fake Hub on this machine."""

from __future__ import annotations

import pytest
from helpers.fake_upload_hub import COMMIT, OURS, REPO, Repo
from helpers.refusals import message

import mlx_aimv2
from mlx_aimv2 import errors
from mlx_aimv2.conversion.options import ConvertOptions
from mlx_aimv2.events import Notice, Progress
from mlx_aimv2.publishing import upload as uploading
from mlx_aimv2.publishing.card import is_ours, read_metadata
from mlx_aimv2.publishing.upload import check_access, upload
from mlx_aimv2.publishing.upload_files import prepare_upload

# huggingface_hub's way to send a file without Xet, in the words of the HTTP library below it
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


# ---- what is sent


def test_a_checkpoint_goes_whole_and_in_one_commit(hub, pair, capfd):
    events = []
    assert upload(pair, REPO, on_event=events.append) == f"{hub.url}/{REPO}"
    sent = hub.repos[REPO].files
    assert set(sent) == {path.name for path in pair.iterdir()} | {".gitattributes"}
    assert sent["model.safetensors"] == (pair / "model.safetensors").read_bytes()
    assert not hub.repos[REPO].private
    assert [one["summary"] for one in hub.commits] == [f"Upload with mlx-aimv2 {mlx_aimv2.__version__}"]
    total = prepare_upload(pair).nbytes
    assert events[0] == Progress("uploading", 0, total, unit="bytes")
    assert events[-1] == Progress("uploading", total, total, unit="bytes")
    assert capfd.readouterr() == ("", "")


def test_the_card_calls_it_by_its_repository(hub, pair):
    upload(pair, REPO)
    card = hub.repos[REPO].files["README.md"].decode()
    assert is_ours(read_metadata(card))
    assert f"\n# {REPO}\n" in card
    assert f'load("{REPO}")' in card
    assert f"--model {REPO}\n" in card
    assert "my-aimv2" not in card


def test_what_convert_did_not_write_stays_behind(hub, own):
    (own / "photo.jpg").write_bytes(b"private")
    (own / ".secret").write_bytes(b"private")
    (own / "extra.safetensors").write_bytes(b"private")
    (own / "notes").mkdir()
    (own / "notes" / "LICENSE").write_bytes(b"private")
    (own / "LICENSE-link").symlink_to("photo.jpg")
    events = []
    upload(own, REPO, on_event=events.append)
    assert not any(b"private" in data for data in hub.repos[REPO].files.values())
    assert "LICENSE-link" not in hub.repos[REPO].files
    assert (
        Notice(
            "left behind, because convert did not write it:"
            " .secret, LICENSE-link, extra.safetensors, notes/, photo.jpg"
        )
        in events
    )


def test_npz_goes_too(hub, pair, tmp_path):
    folder = mlx_aimv2.convert(pair, tmp_path / "npz", options=ConvertOptions(format="npz"))
    upload(folder, REPO)
    assert set(hub.repos[REPO].files) == {path.name for path in folder.iterdir()} | {".gitattributes"}
    assert "model.npz" in hub.repos[REPO].files


def test_a_second_upload_replaces_the_first_and_what_would_be_read_in_its_place(hub, pair):
    stale = {
        "model-00001-of-00002.safetensors": b"",
        "tokenizer.json": b"",
        "images.png": b"",
        "LICENSE": b"",
    }
    hub.repos[REPO] = Repo({".gitattributes": b"", **stale}, card=OURS)
    events = []
    upload(pair, REPO, on_event=events.append)
    sent = hub.repos[REPO].files
    assert set(sent) == {path.name for path in pair.iterdir()} | {".gitattributes", "images.png"}
    assert hub.commits[0]["parentCommit"] == COMMIT
    assert (
        Notice(
            f"removed from {REPO}, because the checkpoint no longer has it:"
            " model-00001-of-00002.safetensors, tokenizer.json"
        )
        in events
    )


def test_private(hub, pair):
    upload(pair, REPO, private=True)
    assert hub.repos[REPO].private
    hub.repos[REPO].card = OURS
    events = []
    upload(pair, REPO, on_event=events.append)
    assert hub.repos[REPO].private
    assert Notice(f"{REPO} is private, and stays so") in events


def test_nothing_is_sent_when_access_is_checked(hub):
    assert check_access(REPO).user == "alice"
    assert hub.repos == {}


# ---- repositories that are refused


@pytest.mark.parametrize(
    "repo", ["", "aimv2", "a/b/c", "alice/..", "alice/x.git", "alice/a b", "https://x/y", "a/b\n"]
)
def test_names_that_are_none(hub, repo):
    assert message(errors.InputError, lambda: check_access(repo)) == (
        f"{repo!r} is not the name of a repository: give OWNER/NAME, such as alice/aimv2-4bit"
    )
    assert hub.paths == []


@pytest.mark.parametrize("card", [None, {}, {"library_name": "mlx", "tags": ["mlx"]}, {"tags": "mlx-aimv2"}])
def test_somebody_elses_files_are_not_overwritten(hub, pair, card):
    before = {"model.safetensors": b"precious", "README.md": b"mine", ".gitattributes": b""}
    hub.repos[REPO] = Repo(dict(before), card=card)
    assert message(errors.OutputError, lambda: upload(pair, REPO)) == (
        f"{REPO} holds README.md, model.safetensors, which mlx-aimv2 did not write: nothing is overwritten;"
        " name another repository"
    )
    assert hub.repos[REPO].files == before


def test_an_empty_repository_is_filled(hub, pair):
    hub.repos[REPO] = Repo({".gitattributes": b""})
    upload(pair, REPO)
    assert "model.safetensors" in hub.repos[REPO].files


def test_a_public_repository_is_not_taken_for_a_private_one(hub, pair):
    hub.repos[REPO] = Repo({".gitattributes": b""})
    assert message(errors.OutputError, lambda: upload(pair, REPO, private=True)) == (
        f"{REPO} exists and all can see it: make it private in its settings, or name another repository"
    )


# ---- tokens, the Hub, the network


def test_a_token_that_can_only_read(hub):
    hub.role = "read"
    assert message(errors.AccessTokenError, lambda: check_access(REPO)) == (
        "the access token of alice can only read: make one that can write at"
        " https://huggingface.co/settings/tokens, then `hf auth login`"
    )


def test_a_repository_that_appears_meanwhile_is_not_filled(hub, pair, monkeypatch):
    look = uploading._access

    def then_somebody_makes_it(repo, user):
        access = look(repo, user)
        hub.repos[REPO] = Repo({".gitattributes": b""})  # for all to see
        return access

    monkeypatch.setattr(uploading, "_access", then_somebody_makes_it)
    text = message(errors.HubError, lambda: upload(pair, REPO, private=True))
    assert text.startswith(f"{REPO} was changed by somebody else meanwhile (")
    assert hub.repos[REPO].files == {".gitattributes": b""}


def test_a_card_that_the_hub_does_not_take(hub, pair):
    hub.answers["validate-yaml"] = (400, "bad metadata")
    text = message(errors.HubError, lambda: upload(pair, REPO))
    assert text == f"the upload to {REPO} failed: Invalid metadata in README.md.: run it again"


@pytest.mark.parametrize("when", ["first", "last"])
@pytest.mark.parametrize("kind", [TypeError, KeyError, OSError, BrokenPipeError, RuntimeError, ValueError])
def test_a_failing_callback_is_heard(hub, pair, kind, when):
    def fail(event):
        if when == "first" or event.done == event.total:
            raise kind("from the callback")

    with pytest.raises(kind, match="from the callback") as caught:
        upload(pair, REPO, on_event=fail)
    assert type(caught.value) is kind


@pytest.mark.parametrize("name", ["README.md", "model.safetensors"])
def test_a_file_that_goes_away_meanwhile_is_not_put_down_to_the_hub(hub, own, name):
    def remove(event):
        (own / name).unlink(missing_ok=True)

    text = message(errors.InputError, lambda: upload(own, REPO, on_event=remove))
    assert text.startswith(f"{own / name} cannot be read any more (")
    assert hub.commits == []
