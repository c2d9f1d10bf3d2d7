"""A converted checkpoint, and a fake Hub to send it to."""

from __future__ import annotations

import shutil

import huggingface_hub
import pytest
from helpers.fake_upload_hub import TOKEN, FakeUploadHub, converted
from huggingface_hub import constants


@pytest.fixture(scope="session")
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
