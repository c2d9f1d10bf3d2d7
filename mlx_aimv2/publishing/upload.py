"""A converted checkpoint to the Hub: only what this package wrote, in one commit, over nothing of anybody else's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .._version import __version__
from ..checkpoints.checkpoint_names import is_repo_name
from ..checkpoints.download import no_bars
from ..checkpoints.file_names import is_written_name, small_files
from ..errors import (
    AccessTokenError,
    InputError,
    OfflineError,
    OutputError,
)
from ..events import Notice, OnEvent, Progress, ignore
from ..messages import listed
from .card import CARD, is_ours, renamed
from .hub_errors import TOKENS, explained, not_the_hub
from .upload_files import Parcel, prepare_upload

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

SHOWN = 8  # names in a message
FRESH = frozenset({".gitattributes"})  # what a repository holds that nobody has put anything into


@dataclass(frozen=True)
class Access:
    """What the Hub says before anything is sent.

    Attributes:
        repo: `owner/name`.
        user: whose token it is.
        commit: the repository's last commit; None where there is no such repository yet.
        names: files that the repository holds.
        private: whether others cannot see it.
    """

    repo: str
    user: str
    commit: str | None
    names: tuple[str, ...]
    private: bool


def check_name(repo: str) -> None:
    """Refuse what cannot be the name of a repository.

    Raises:
        InputError: it is not of the form `owner/name`.
    """
    if not is_repo_name(repo):
        raise InputError(
            f"{repo!r} is not the name of a repository: give OWNER/NAME, such as alice/aimv2-4bit"
        )


def check_access(repo: str, *, private: bool = False) -> Access:
    """Whether a checkpoint may be uploaded to ``repo``: its name, the access token, and what is there already.

    Meant to be called before hours of work are put into what shall be uploaded; it changes nothing.

    Raises:
        InputError: ``repo`` is not the name of a repository.
        AccessTokenError: there is no token, it is refused, or it can only read.
        OfflineError: offline mode is on, or the Hub cannot be reached.
        OutputError: the repository holds what this package did not write, or all can see it and ``private`` is set.
        HubError: the Hub fails otherwise.
    """
    from huggingface_hub import constants, get_token

    check_name(repo)
    if constants.HF_HUB_OFFLINE:
        raise OfflineError(f"offline mode is on (HF_HUB_OFFLINE): unset it to upload to {repo}")
    with explained(repo):
        token = get_token()
    if not token:
        raise AccessTokenError(
            f"no access token to upload to {repo}: `hf auth login` once, or set HF_TOKEN ({TOKENS})"
        )
    if not (token.isascii() and token.isprintable()):
        raise AccessTokenError(
            "the access token holds signs that no token has: `hf auth login`, or correct HF_TOKEN"
        )
    with explained(repo):
        answer = _api().whoami()
    try:
        user = _user(answer)
    except (KeyError, TypeError) as error:
        raise not_the_hub(error) from error
    access = _look(repo, user)
    _check_repository(access, private)
    return access


def _api() -> HfApi:
    from huggingface_hub import HfApi, constants

    return HfApi(endpoint=constants.ENDPOINT, library_name="mlx-aimv2", library_version=__version__)


def _user(answer: Mapping[str, object]) -> str:
    """Whose token it is, in `whoami`'s answer.

    Raises:
        AccessTokenError: it is a token that can only read.
    """
    user = str(answer["name"])
    auth = answer.get("auth")
    token = auth.get("accessToken") if isinstance(auth, Mapping) else None
    if isinstance(token, Mapping) and token.get("role") == "read":
        raise AccessTokenError(
            f"the access token of {user} can only read: make one that can write at {TOKENS}, then `hf auth login`"
        )
    return user


def _look(repo: str, user: str) -> Access:
    from huggingface_hub.errors import RepositoryNotFoundError as NoRepository

    with explained(repo, user):
        try:
            info = _api().model_info(repo)
        except NoRepository:
            return Access(repo, user, None, (), False)
    names = tuple(entry.rfilename for entry in info.siblings or ())
    stated = info.card_data.to_dict() if info.card_data else {}
    theirs = set(names) - FRESH
    tags = stated.get("tags")
    metadata = {
        "library_name": (str(stated.get("library_name")),),
        "tags": tuple(map(str, tags)) if isinstance(tags, list) else (),
    }
    if theirs and not is_ours(metadata):
        raise OutputError(
            f"{repo} holds {listed(sorted(theirs), SHOWN)}, which mlx-aimv2 did not write: nothing is overwritten;"
            " name another repository"
        )
    return Access(repo, user, info.sha, names, bool(info.private))


def _check_repository(access: Access, private: bool) -> None:
    if access.commit is not None and private and not access.private:
        raise OutputError(
            f"{access.repo} exists and all can see it: make it private in its settings, or name another repository"
        )


def upload(
    path: str | os.PathLike[str], repo: str, *, private: bool = False, on_event: OnEvent = ignore
) -> str:
    """Put a converted checkpoint on the Hub, in one commit.

    Only the files that `mlx-aimv2 convert` writes go: configuration, weights, preprocessor, tokenizer, licence and
    card. In the card's title and usage the checkpoint gets the repository's name. Files of an earlier upload that
    the checkpoint no longer has are removed, because they would be read in place of the new ones.

    Args:
        path: the folder.
        repo: `owner/name`; it is made if it does not exist.
        private: make it so that others cannot see it.
        on_event: called with progress in bytes of the weights, and notices.

    Returns:
        The address of the repository.

    Raises:
        InputError: the folder is nothing that this package wrote, one of its files cannot be read any more, or
            ``repo`` is not the name of a repository.
        CheckpointError: the folder is no checkpoint, or damaged.
        AccessTokenError: there is no token, it is refused, or it may not write to ``repo``.
        OutputError: the repository holds what this package did not write, or all can see it and ``private`` is set.
        HubError: the Hub or the network fails.
    """
    from huggingface_hub import constants

    parcel = prepare_upload(path)
    access = check_access(repo, private=private)
    if parcel.left:
        on_event(Notice(f"left behind, because convert did not write it: {listed(parcel.left, SHOWN)}"))
    if access.commit is not None and access.private and not private:
        on_event(Notice(f"{repo} is private, and stays so"))
    with no_bars():
        _send(parcel, access, private, on_event)
    return f"{constants.ENDPOINT}/{repo}"


def _send(parcel: Parcel, access: Access, private: bool, on_event: OnEvent) -> None:
    from huggingface_hub import CommitOperationDelete

    api, repo, user = _api(), access.repo, access.user
    if access.commit is None:
        with explained(repo, user):  # refused if somebody else has made it meanwhile, perhaps for all to see
            api.create_repo(repo, private=private)
    additions, done = [], 0
    on_event(Progress("uploading", 0, parcel.nbytes, unit="bytes"))
    for name, size in parcel.sizes.items():
        one = _addition(parcel.folder / name, repo)
        if name.endswith((".safetensors", ".npz")):
            with explained(repo, user):
                api.preupload_lfs_files(repo, [one])  # one by one, so that progress can be told
        additions.append(one)
        done += size
        on_event(Progress("uploading", done, parcel.nbytes, unit="bytes"))
    gone = _stale(access.names, parcel.sizes)
    if gone:
        on_event(
            Notice(f"removed from {repo}, because the checkpoint no longer has it: {listed(gone, SHOWN)}")
        )
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *additions,
        *(CommitOperationDelete(name) for name in gone),
    ]
    with explained(repo, user):
        api.create_commit(
            repo,
            operations,
            commit_message=f"Upload with mlx-aimv2 {__version__}",
            parent_commit=access.commit,  # whatever has come in between is not overwritten
        )


def _addition(path: Path, repo: str) -> CommitOperationAdd:
    """One file as it goes to the Hub.

    Raises:
        InputError: it cannot be read, although it was there when the folder was looked through.
    """
    from huggingface_hub import CommitOperationAdd

    try:
        content = renamed(path.read_text(encoding="utf-8"), repo).encode() if path.name == CARD else path
        return CommitOperationAdd(path.name, content)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read any more ({error}): upload a folder that stays as it is"
        ) from error


def _stale(names: tuple[str, ...], sizes: Mapping[str, int]) -> list[str]:
    """Files of an earlier upload that would be read together with, or in place of, the new ones."""
    written = [name for name in small_files(names) if not name.startswith("LICENSE")]
    weights = filter(is_written_name, names)
    return sorted(name for name in {*written, *weights} if name not in sizes)
