"""What the Hub's refusals of an upload mean to the user, each in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import AccessTokenError, HubError, OfflineError, RepositoryNotFoundError

TOKENS = "https://huggingface.co/settings/tokens"
_NO_ROOM = (402, 413, 507)  # statuses


@contextmanager
def explained(repo: str, user: str = "") -> Iterator[None]:
    """Turn what a call of ``huggingface_hub`` raises into one line of this package's; nothing else goes inside."""
    from huggingface_hub.errors import HfHubHTTPError

    # the errors of the HTTP library below it are of requests or httpx, by version
    bases: tuple[type, ...] = HfHubHTTPError.__mro__
    transport = tuple(kind for kind in bases if issubclass(kind, Exception) and kind.__module__ != "builtins")
    known: tuple[type[Exception], ...] = (*transport, OSError, ValueError, RuntimeError)
    try:
        yield
    except known as error:
        raise _refusal(error, transport, repo, user) from error


def _refusal(error: Exception, transport: tuple[type[Exception], ...], repo: str, user: str) -> HubError:
    from huggingface_hub import constants

    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # why one of the files could not be sent
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        said = " ".join(str(getattr(error, "server_message", None) or "").split())[:200]
        return _answered(status, said, repo, user)
    if isinstance(error, (*transport, ConnectionError, TimeoutError)):
        return OfflineError(
            f"{constants.ENDPOINT} cannot be reached: nothing is in {repo} yet; check the network, then `mlx-aimv2"
            " upload` again"
        )
    first_line = str(error).strip().partition("\n")[0] or type(error).__name__
    if isinstance(error, ValueError) and not user:
        return not_the_hub(error)
    return HubError(f"the upload to {repo} failed: {first_line}: run it again")


def not_the_hub(error: Exception) -> HubError:
    """What an answer that makes no sense means."""
    from huggingface_hub import constants

    said = str(error).strip().partition("\n")[0] or type(error).__name__
    return HubError(f"what answers at {constants.ENDPOINT} is not the Hub ({said}): see HF_ENDPOINT")


def _answered(status: int, said: str, repo: str, user: str) -> HubError:
    """What a refusal of the Hub means, by its status."""
    words = f" ({said})" if said else ""
    if status == 401:
        return AccessTokenError(
            f"the Hub refused the access token{words}: `hf auth login` again, or correct HF_TOKEN"
        )
    if status in _NO_ROOM or (status == 403 and "storage" in said.lower()):
        return HubError(f"the Hub has no room for {repo}{words}: free some, or upload to another owner")
    if status == 403:
        return AccessTokenError(
            f"the access token of {user} may not write to {repo}{words}: it needs write permission there ({TOKENS})"
        )
    if status == 404:
        owner = repo.partition("/")[0]
        return RepositoryNotFoundError(
            f"the Hub knows no {owner} that {user or 'this token'} may write to{words}: check the owner's name"
        )
    if status in (409, 412):
        return HubError(
            f"{repo} was changed by somebody else meanwhile{words}: look at it, then run it again"
        )
    advice = "too many requests: wait a few minutes" if status == 429 else "try again later"
    return HubError(f"the Hub answered {status} for {repo}{words}: {advice}")
