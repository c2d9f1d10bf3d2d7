"""From the name of a checkpoint to the folder with its files: local, cached (offline too), or from the Hub."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import (
    GatedRepositoryError,
    HubError,
    InputError,
    OfflineError,
    RepositoryNotFoundError,
)
from ..events import Notice, OnEvent, warn
from ..presets import DEMO_MODEL, find
from .bundled import bundled_folder, is_demo
from .checkpoint_names import checked_text, folder_or_model, is_repo_name, local_folder, repository, similar
from .download import Download, Listing, is_complete

_REVISION = re.compile(r"(?!.*\.\.)\w[\w./+-]*", re.ASCII)
_WEIGHTS = re.compile(r"[\w.-]+\.(?:safetensors|npz|msgpack)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAIN = "main"

_LICENSE_TERMS = {"apple-amlr": "research use only", "apple-ascl": "Apple's sample code licence"}

_DISK_TROUBLE = {
    errno.ENOSPC: "the disk is full: free some room, or set HF_HOME to a folder on another disk",
    errno.EDQUOT: "the disk quota is used up: free some room, or set HF_HOME to a folder elsewhere",
    errno.EACCES: "it may not be written: set HF_HOME to a folder that may",
    errno.EPERM: "it may not be written: set HF_HOME to a folder that may",
    errno.EROFS: "it may not be written: set HF_HOME to a folder that may",
    errno.ENOTDIR: "part of that path is not a folder: set HF_HOME to one that is",
    errno.EEXIST: "part of that path is not a folder: set HF_HOME to one that is",
}
_STATUS_ADVICE = {
    401: "the access token was refused: renew it with `hf auth login`",
    403: "access was refused: see `hf auth whoami`",
    429: "too many requests: wait a few minutes",
}


@dataclass(frozen=True)
class Resolved:
    """The folder of a checkpoint, and its source."""

    folder: Path  # with config.json and the weights
    repo: str | None  # on the Hub, owner/name; None for a local folder
    revision: str | None  # the commit hash; None for a local folder
    bundled: bool = False  # inside the package, whose folder differs on every machine

    @property
    def name(self) -> str:
        """The repository, `demo`, or the path of the folder."""
        return DEMO_MODEL if self.bundled else self.repo or str(self.folder)


@dataclass(frozen=True)
class _Wanted:
    """A request for a checkpoint on the Hub."""

    repo: str
    revision: str | None = None
    weights: str | None = None

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo} at revision {self.revision}"


def resolve(
    path_or_repo: str | os.PathLike[str],
    revision: str | None = None,
    on_event: OnEvent = warn,
    weights: str | None = None,
) -> Resolved:
    """The folder of a checkpoint, downloaded from the Hub if it is not in the cache.

    An existing checkpoint folder comes first; if it has the name of a known model, a ``Notice`` says so. A folder of
    such a name that is no checkpoint gives way to the model. Any other text that does not look like a path is `demo`,
    the checkpoint inside the package, a short name of ``presets``, or a repository. Without a network, or with
    ``HF_HUB_OFFLINE=1``, the repository must be in the cache.

    Args:
        path_or_repo: folder, short name (``demo``, ``large-224``) or repository (``apple/aimv2-large-patch14-224``).
        revision: branch, tag or commit on the Hub; None for the commit that a short name pins, and for the main
            branch of a repository.
        on_event: called with a ``Notice`` about the licence before a download, and with ``Progress`` in bytes of the
            weights during it, partly from another thread.
        weights: name of the weight file to load instead of ``model.safetensors`` or its shards.

    Raises:
        InputError: an argument has a wrong form, is a file, or names nothing known.
        NotACheckpointError: there is no such folder, the repository holds no usable checkpoint, or the installation
            lacks `demo`.
        PickleRefusedError: the repository has only pickled weights.
        DamagedFileError: the index of the weights is damaged.
        HubError: the Hub, the network or the cache fails; the subclasses tell the common cases apart.
    """
    text = checked_text(path_or_repo)
    folder = local_folder(text)
    if isinstance(path_or_repo, str):
        folder = folder_or_model(text, folder, on_event)
    if folder is not None:
        if revision is not None:
            raise InputError(f"{folder} is a local folder, which has no revision {revision!r}: leave it out")
        return Resolved(folder, None, None)
    if is_demo(text):
        if revision is not None:
            raise InputError(
                f"{DEMO_MODEL} lies inside the package and has no revision {revision!r}: leave it out"
            )
        return Resolved(bundled_folder(), None, None, bundled=True)
    if revision is not None and not _REVISION.fullmatch(revision):
        raise InputError(f"{revision!r} is not the name of a branch or tag, nor a commit")
    if weights is not None and not _WEIGHTS.fullmatch(weights):
        raise InputError(f"weights must name a .safetensors, .npz or .msgpack file, not {weights!r}")
    repo, pinned = repository(text)
    return _from_hub(_Wanted(repo, revision or pinned, weights), on_event)


def is_cached(repo: str, revision: str | None = None) -> bool:
    """Whether a complete copy of a repository, or of a preset (its main branch or its pin), is in the cache."""
    preset = find(repo)
    name = preset.repo if preset else repo
    if not is_repo_name(name) or (revision is not None and not _REVISION.fullmatch(revision)):
        return False
    revisions = {revision, preset.revision if preset and revision is None else revision}
    return any(_cached(_Wanted(name, candidate)) is not None for candidate in revisions)


def _from_hub(wanted: _Wanted, on_event: OnEvent) -> Resolved:
    from huggingface_hub import constants
    from huggingface_hub.errors import RepositoryNotFoundError as NoRepository
    from huggingface_hub.errors import RevisionNotFoundError as NoRevision

    if constants.HF_HUB_OFFLINE:
        if (cached := _cached(wanted)) is None:
            raise OfflineError(_not_cached(wanted, "offline mode is on (HF_HUB_OFFLINE)"))
        return cached
    if _COMMIT.fullmatch(wanted.revision or "") and (cached := _cached(wanted)) is not None:
        return cached  # a commit never changes
    try:
        listing = _listing(wanted)
    except (NoRepository, NoRevision) as error:
        raise _refusal(error, wanted) from error
    # an answer that is not JSON, or not of the Hub's form, comes from another server
    except http_errors(OSError, ValueError, KeyError, TypeError) as error:
        cached = _cached(wanted)
        if cached is None:
            raise _refusal(error, wanted) from error
        on_event(Notice(f"the Hub cannot be reached: using the cached copy of {wanted}"))
        return cached
    download = Download(listing, on_event)
    try:
        folder = download.run(wanted.weights)
    except http_errors(OSError, RuntimeError) as error:  # hf_xet raises RuntimeError
        raise _refusal(error, wanted) from error
    with suppress(OSError):  # a read-only cache
        download.remember(wanted.revision or _MAIN)
    return Resolved(folder, wanted.repo, listing.commit)


def http_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """``others``, and the errors of the HTTP library below huggingface_hub: requests or httpx, by version."""
    from huggingface_hub.errors import HfHubHTTPError

    bases: tuple[type, ...] = HfHubHTTPError.__mro__
    transport = [kind for kind in bases if issubclass(kind, Exception) and kind.__module__ != "builtins"]
    return (*transport, *others)


def _listing(wanted: _Wanted) -> Listing:
    from huggingface_hub import HfApi, constants

    info = HfApi(endpoint=constants.ENDPOINT).model_info(
        wanted.repo, revision=wanted.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT, files_metadata=True
    )
    if not isinstance(info.sha, str):
        raise ValueError("no commit in the answer")
    sizes = {entry.rfilename: entry.size or 0 for entry in info.siblings or ()}
    card = info.card_data
    stated = card and card.get("license_name" if card.get("license") == "other" else "license")
    return Listing(wanted.repo, info.sha, sizes, _license_notice(wanted, stated, sizes))


def _license_notice(wanted: _Wanted, stated: object, names: dict[str, int]) -> str:
    """One line that names the licence of the card, or else of the table of presets."""
    preset = find(wanted.repo)
    name = stated if isinstance(stated, str) else preset.license if preset else None
    file = next((name for name in sorted(names) if fnmatchcase(name, "LICENSE*")), "README.md")
    url = f"https://huggingface.co/{wanted.repo}/blob/{wanted.revision or _MAIN}/{file}"
    if name is None:
        return f"{wanted.repo} states no licence: see {url}"
    terms = f" ({_LICENSE_TERMS[name]})" if name in _LICENSE_TERMS else ""
    return f"{wanted.repo} is licensed {name}{terms}: {url}"


def _cached(wanted: _Wanted) -> Resolved | None:
    """The complete copy in the cache; None if there is none."""
    folder = _cached_folder(wanted)
    if folder is None or not is_complete(folder, wanted.weights):
        return None
    return Resolved(folder, wanted.repo, folder.name)


def _cached_folder(wanted: _Wanted) -> Path | None:
    from huggingface_hub import constants, try_to_load_from_cache

    cache = Path(constants.HF_HUB_CACHE).expanduser()
    config = try_to_load_from_cache(wanted.repo, "config.json", cache_dir=cache, revision=wanted.revision)
    return Path(config).parent if isinstance(config, str) else None


def _not_cached(wanted: _Wanted, reason: str) -> str:
    state = "not in the cache" if _cached_folder(wanted) is None else "only partly in the cache"
    option = "" if wanted.revision is None else f" --revision {wanted.revision}"
    return (
        f"{wanted} is {state}, and {reason}: give a local folder, or run `hf download "
        f"{wanted.repo}{option} --local-dir FOLDER` on a machine with network and copy FOLDER here"
    )


def _refusal(error: Exception, wanted: _Wanted) -> HubError:
    """The error, with a message of one line, for a failure of huggingface_hub."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # why the download failed
    if isinstance(error, errors.GatedRepoError):
        page = f"https://huggingface.co/{wanted.repo}"
        return GatedRepositoryError(
            f"{wanted.repo} is gated: accept its terms at {page}, then `hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return RepositoryNotFoundError(
            f"{wanted.repo} has no revision {wanted.revision!r}: see its branches and tags"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return RepositoryNotFoundError(
            f"no repository {wanted.repo} on the Hub, and no such folder here "
            f"(if it is private: `hf auth login`): {similar(wanted.repo)}"
        )
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        advice = _STATUS_ADVICE.get(status, "try again later")
        return HubError(f"the Hub answered {status} for {wanted}: {advice}, or give a local folder")
    if isinstance(error, OSError) and error.errno in _DISK_TROUBLE:
        return HubError(f"cannot write to the cache {constants.HF_HUB_CACHE}: {_DISK_TROUBLE[error.errno]}")
    if isinstance(error, http_errors(errors.LocalEntryNotFoundError, ConnectionError, TimeoutError)):
        return OfflineError(_not_cached(wanted, f"{constants.ENDPOINT} cannot be reached"))
    if isinstance(error, ValueError | KeyError | TypeError):
        return OfflineError(_not_cached(wanted, f"what answers at {constants.ENDPOINT} is not the Hub"))
    first_line = str(error).strip().partition("\n")[0] or type(error).__name__
    return HubError(f"the download of {wanted} failed: {first_line}: run it again")
