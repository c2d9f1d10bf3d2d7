"""Uploading, against a fake Hub on this machine."""

from __future__ import annotations

import shutil

import huggingface_hub
import pytest
from helpers.fake_upload_hub import COMMIT, OURS, REPO, TOKEN, FakeUploadHub, Repo, converted
from huggingface_hub import constants

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


@pytest.fixture(scope="module")
def pair(tmp_path_factory, variants):
    return converted(tmp_path_factory.mktemp("upload") / "my-aimv2", variants["lit"])


@pytest.fixture
def own(pair, tmp_path):
    """A copy of the checkpoint that a test may change."""
    return shutil.copytree(pair, tmp_path / "own")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """No token, no cache and no setting of whoever runs the tests."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HF_TOKEN_PATH", "HF_STORED_TOKENS_PATH"):
        monkeypatch.setattr(constants, name, str(tmp_path / name))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def hub(monkeypatch):
    with FakeUploadHub().running() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
        getattr(huggingface_hub, "close_session", lambda: None)()


def message(kind, call):
    """The message of a refusal, which has to be of exactly this class and one line long."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


def test_shards_go_with_their_index(pair, tmp_path):
    options = ConvertOptions(max_shard_bytes=60_000)
    folder = mlx_aimv2.convert(pair, tmp_path / "shards", options=options)
    names = list(prepare_upload(folder).sizes)
    assert "model.safetensors.index.json" in names
    assert sum(name.endswith(".safetensors") for name in names) > 1
    assert prepare_upload(folder).left == ()


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


# ---- folders that are refused


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


def test_no_token(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert message(errors.AccessTokenError, lambda: check_access(REPO)) == (
        f"no access token to upload to {REPO}: `hf auth login` once, or set HF_TOKEN"
        " (https://huggingface.co/settings/tokens)"
    )
    assert hub.paths == []


def test_a_refused_token(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    text = message(errors.AccessTokenError, lambda: check_access(REPO))
    assert text.startswith("the Hub refused the access token")
    assert text.endswith(": `hf auth login` again, or correct HF_TOKEN")
    assert "hf_other" not in text


def test_a_token_of_odd_signs(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_ä")
    assert message(errors.AccessTokenError, lambda: check_access(REPO)) == (
        "the access token holds characters that no token has: `hf auth login`, or correct HF_TOKEN"
    )


def test_a_token_that_can_only_read(hub):
    hub.role = "read"
    assert message(errors.AccessTokenError, lambda: check_access(REPO)) == (
        "the access token of alice can only read: make one that can write at"
        " https://huggingface.co/settings/tokens, then `hf auth login`"
    )


@pytest.mark.parametrize(
    ("where", "status", "said", "kind", "text"),
    [
        (
            "create",
            403,
            "You don't have the rights",
            errors.AccessTokenError,
            f"the access token of alice may not write to {REPO} (You don't have the rights): it needs write"
            " permission there (https://huggingface.co/settings/tokens)",
        ),
        (
            "create",
            404,
            "No such owner",
            errors.RepositoryNotFoundError,
            "the Hub knows no alice that alice may write to (No such owner): check the owner's name",
        ),
        (
            "create",
            409,
            "You already created this model repo",
            errors.HubError,
            f"{REPO} was changed by somebody else meanwhile (You already created this model repo): look at it, then"
            " run it again",
        ),
        (
            "commit",
            412,
            "moved",
            errors.HubError,
            f"{REPO} was changed by somebody else meanwhile (moved): look at it, then run it again",
        ),
        (
            "batch",
            403,
            "Private repository storage limit reached",
            errors.HubError,
            f"the Hub has no room for {REPO} (Private repository storage limit reached): free some, or upload to"
            " another owner",
        ),
        (
            "create",
            429,
            "slow",
            errors.HubError,
            f"the Hub answered 429 for {REPO} (slow): too many requests: wait a few minutes",
        ),
        ("create", 500, "oops", errors.HubError, f"the Hub answered 500 for {REPO} (oops): try again later"),
    ],
)
def test_refusals_of_the_hub(hub, pair, where, status, said, kind, text):
    hub.answers[where] = (status, said)
    assert message(kind, lambda: upload(pair, REPO)) == text


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


def test_weights_that_are_refused_on_their_way(hub, pair):
    hub.answers["store"] = (403, "expired")
    text = message(errors.AccessTokenError, lambda: upload(pair, REPO))
    assert text.startswith(f"the access token of alice may not write to {REPO}")
    assert hub.commits == []


def test_offline_mode(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert message(errors.OfflineError, lambda: check_access(REPO)) == (
        f"offline mode is on (HF_HUB_OFFLINE): unset it to upload to {REPO}"
    )


def test_no_network(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert message(errors.OfflineError, lambda: check_access(REPO)) == (
        f"http://127.0.0.1:1 cannot be reached: nothing is in {REPO} yet; check the network, then"
        " `mlx-aimv2 upload` again"
    )


def test_something_else_answers(hub, monkeypatch):
    monkeypatch.setattr(
        uploading, "_api", lambda: type("Api", (), {"whoami": lambda self: {"error": "log in"}})()
    )
    assert message(errors.HubError, lambda: check_access(REPO)) == (
        f"what answers at {hub.url} is not the Hub ('name'): see HF_ENDPOINT"
    )


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
