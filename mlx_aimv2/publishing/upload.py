"""Upload of a converted checkpoint to the Hub: its own files only, in one commit, never over files of others."""

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
from ..errors import AccessTokenError, InputError, OfflineError, OutputError
from ..events import Notice, OnEvent, Progress, warn
from ..messages import listed
from .card import CARD, is_ours, renamed
from .hub_errors import TOKENS, explained, not_the_hub
from .upload_files import UploadFiles, prepare_upload

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

SHOWN = 8  # names in a message
FRESH = frozenset({".gitattributes"})  # the files of a new repository


@dataclass(frozen=True)
class Access:
    """The state of a repository before an upload.

    Attributes:
        repo: `owner/name`.
        user: the owner of the access token.
        commit: the repository's last commit; None if the repository does not exist yet.
        names: files of the repository.
        private: whether others cannot see the repository.
    """

    repo: str
    user: str
    commit: str | None
    names: tuple[str, ...]
    private: bool


def check_repo_name(repo: str) -> None:
    """Raise InputError if a text is not the name of a repository, `owner/name`."""
    if not is_repo_name(repo):
        raise InputError(
            f"{repo!r} is not the name of a repository: give OWNER/NAME, such as alice/aimv2-4bit"
        )


def check_access(repo: str, *, private: bool = False) -> Access:
    """Check whether a checkpoint may be uploaded to ``repo``: its name, the access token, and its files.

    Call it before hours of work on the checkpoint; it changes nothing.

    Raises:
        InputError: ``repo`` is not the name of a repository.
        AccessTokenError: there is no token, it is refused, or it can only read.
        OfflineError: offline mode is on, or the Hub cannot be reached.
        OutputError: the repository holds other files, or is public and ``private`` is set.
        HubError: the Hub fails in another way.
    """
    from huggingface_hub import constants, get_token

    check_repo_name(repo)
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
            "the access token holds characters that no token has: `hf auth login`, or correct HF_TOKEN"
        )
    with explained(repo):
        answer = _api().whoami()
    try:
        user = _user(answer)
    except (KeyError, TypeError) as error:
        raise not_the_hub(error) from error
    access = _access(repo, user)
    if access.commit is not None and private and not access.private:
        raise OutputError(
            f"{repo} exists and all can see it: make it private in its settings, or name another repository"
        )
    return access


def _api() -> HfApi:
    from huggingface_hub import HfApi, constants

    return HfApi(endpoint=constants.ENDPOINT, library_name="mlx-aimv2", library_version=__version__)


def _user(answer: Mapping[str, object]) -> str:
    """The owner of the token, from `whoami`'s answer; raise AccessTokenError if the token can only read."""
    user = str(answer["name"])
    auth = answer.get("auth")
    token = auth.get("accessToken") if isinstance(auth, Mapping) else None
    if isinstance(token, Mapping) and token.get("role") == "read":
        raise AccessTokenError(
            f"the access token of {user} can only read: make one that can write at {TOKENS}, then `hf auth login`"
        )
    return user


def _access(repo: str, user: str) -> Access:
    from huggingface_hub.errors import RepositoryNotFoundError as NoRepository

    with explained(repo, user):
        try:
            info = _api().model_info(repo)
        except NoRepository:
            return Access(repo, user, None, (), False)
    names = tuple(entry.rfilename for entry in info.siblings or ())
    card = info.card_data.to_dict() if info.card_data else {}
    others, tags = set(names) - FRESH, card.get("tags")
    metadata = {
        "library_name": (str(card.get("library_name")),),
        "tags": tuple(map(str, tags)) if isinstance(tags, list) else (),
    }
    if others and not is_ours(metadata):
        raise OutputError(
            f"{repo} holds {listed(sorted(others), SHOWN)}, which mlx-aimv2 did not write: nothing is overwritten;"
            " name another repository"
        )
    return Access(repo, user, info.sha, names, bool(info.private))


def upload(
    path: str | os.PathLike[str], repo: str, *, private: bool = False, on_event: OnEvent = warn
) -> str:
    """Upload a converted checkpoint to the Hub, in one commit.

    Only the files of `mlx-aimv2 convert` are uploaded: configuration, weights, preprocessor, tokenizer, licence and
    card. The card's title and usage get the repository's name. Files of an earlier upload that the checkpoint no
    longer has are removed, because programs would read them in place of the new ones.

    Args:
        path: the folder.
        repo: `owner/name`; a missing repository is created.
        private: create a private repository.
        on_event: called with progress in bytes of the weights, and notices.

    Returns:
        The address of the repository.

    Raises:
        InputError: this package did not write the folder, a file cannot be read any more, or ``repo`` is not the
            name of a repository.
        CheckpointError: the folder is no checkpoint, or damaged.
        AccessTokenError: there is no token, it is refused, or it may not write to ``repo``.
        OutputError: the repository holds other files, or is public and ``private`` is set.
        HubError: the Hub or the network fails.
    """
    from huggingface_hub import constants

    files = prepare_upload(path)
    access = check_access(repo, private=private)
    if files.left:
        on_event(Notice(f"left behind, because convert did not write it: {listed(files.left, SHOWN)}"))
    if access.commit is not None and access.private and not private:
        on_event(Notice(f"{repo} is private, and stays so"))
    with no_bars():
        _send(files, access, private, on_event)
    return f"{constants.ENDPOINT}/{repo}"


def _send(files: UploadFiles, access: Access, private: bool, on_event: OnEvent) -> None:
    from huggingface_hub import CommitOperationDelete

    api, repo, user = _api(), access.repo, access.user
    if access.commit is None:
        with explained(repo, user):  # refused if somebody has created it meanwhile, perhaps publicly
            api.create_repo(repo, private=private)
    additions, done = [], 0
    on_event(Progress("uploading", 0, files.nbytes, unit="bytes"))
    for name, size in files.sizes.items():
        addition = _addition(files.folder / name, repo)
        if name.endswith((".safetensors", ".npz")):
            with explained(repo, user):
                api.preupload_lfs_files(repo, [addition])  # one by one, for progress
        additions.append(addition)
        done += size
        on_event(Progress("uploading", done, files.nbytes, unit="bytes"))
    earlier = [name for name in small_files(access.names) if not name.startswith("LICENSE")]
    earlier += filter(is_written_name, access.names)
    stale = sorted(set(earlier) - set(files.sizes))  # would be read in place of the new ones, or with them
    if stale:
        on_event(
            Notice(f"removed from {repo}, because the checkpoint no longer has it: {listed(stale, SHOWN)}")
        )
    with explained(repo, user):
        api.create_commit(
            repo,
            [*additions, *map(CommitOperationDelete, stale)],
            commit_message=f"Upload with mlx-aimv2 {__version__}",
            parent_commit=access.commit,  # nothing that came in between is overwritten
        )


def _addition(path: Path, repo: str) -> CommitOperationAdd:
    """One file as it goes to the Hub."""
    from huggingface_hub import CommitOperationAdd

    try:
        content = renamed(path.read_text(encoding="utf-8"), repo).encode() if path.name == CARD else path
        return CommitOperationAdd(path.name, content)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read any more ({error}): upload a folder that stays as it is"
        ) from error
