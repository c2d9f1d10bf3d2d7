"""Answers of the Hub as errors."""

from __future__ import annotations

import pytest
from helpers.fake_upload_hub import REPO
from helpers.refusals import message
from huggingface_hub import constants

from mlx_aimv2 import errors
from mlx_aimv2.publishing import upload as uploading
from mlx_aimv2.publishing.upload import check_access, upload

# huggingface_hub's way to send a file without Xet, in the words of the HTTP library below it
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


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
