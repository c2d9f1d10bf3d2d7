"""Messages, of one line each, for errors of the Hub during an upload."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..checkpoints.resolve import http_errors
from ..errors import AccessTokenError, HubError, OfflineError, RepositoryNotFoundError

TOKENS = "https://huggingface.co/settings/tokens"
_NO_ROOM = (402, 413, 507)  # statuses


@contextmanager
def explained(repo: str, user: str = "") -> Iterator[None]:
    """Turn the errors of a call of ``huggingface_hub`` into this package's, with a message of one line."""
    try:
        yield
    except http_errors(OSError, ValueError, RuntimeError) as error:
        raise _refusal(error, repo, user) from error


def _refusal(error: Exception, repo: str, user: str) -> HubError:
    from huggingface_hub import constants

    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # why a file could not be sent
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        reason = " ".join(str(getattr(error, "server_message", None) or "").split())[:200]
        return _status_error(status, reason, repo, user)
    if isinstance(error, http_errors(ConnectionError, TimeoutError)):
        return OfflineError(
            f"{constants.ENDPOINT} cannot be reached: nothing is in {repo} yet; check the network, then `mlx-aimv2"
            " upload` again"
        )
    first_line = str(error).strip().partition("\n")[0] or type(error).__name__
    if isinstance(error, ValueError) and not user:
        return not_the_hub(error)
    return HubError(f"the upload to {repo} failed: {first_line}: run it again")


def not_the_hub(error: Exception) -> HubError:
    """The error for an answer that is not of the Hub's form."""
    from huggingface_hub import constants

    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return HubError(f"what answers at {constants.ENDPOINT} is not the Hub ({reason}): see HF_ENDPOINT")


def _status_error(status: int, reason: str, repo: str, user: str) -> HubError:
    """The error for an answer of the Hub with this status."""
    detail = f" ({reason})" if reason else ""
    if status == 401:
        return AccessTokenError(
            f"the Hub refused the access token{detail}: `hf auth login` again, or correct HF_TOKEN"
        )
    if status in _NO_ROOM or (status == 403 and "storage" in reason.lower()):
        return HubError(f"the Hub has no room for {repo}{detail}: free some, or upload to another owner")
    if status == 403:
        return AccessTokenError(
            f"the access token of {user} may not write to {repo}{detail}: it needs write permission there ({TOKENS})"
        )
    if status == 404:
        owner = repo.partition("/")[0]
        return RepositoryNotFoundError(
            f"the Hub knows no {owner} that {user or 'this token'} may write to{detail}: check the owner's name"
        )
    if status in (409, 412):
        return HubError(
            f"{repo} was changed by somebody else meanwhile{detail}: look at it, then run it again"
        )
    advice = "too many requests: wait a few minutes" if status == 429 else "try again later"
    return HubError(f"the Hub answered {status} for {repo}{detail}: {advice}")
