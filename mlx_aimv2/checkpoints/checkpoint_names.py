"""Names of checkpoints: telling folders, short names and repositories apart."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import InputError, NotACheckpointError
from ..events import Notice, OnEvent
from ..presets import find, suggest
from .bundled import is_demo
from .file_names import is_checkpoint

_REPO = re.compile(r"(?=.{3,96}\Z)(?!.*(?:--|\.\.))(?!.*\.git\Z)\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?", re.ASCII)
_DRIVE = re.compile(r"[A-Za-z]:")


def is_repo_name(text: str) -> bool:
    """Whether a text can be the name of a repository of the Hub: `owner/name`."""
    return _REPO.fullmatch(text) is not None


def checked_text(path_or_repo: object) -> str:
    """The argument as text; raise InputError if it is neither text nor path, is empty, or is a web address."""
    if not isinstance(path_or_repo, str | os.PathLike):
        raise InputError(f"a checkpoint is a folder or a model name, not {type(path_or_repo).__name__}")
    text = os.fspath(path_or_repo)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise InputError(f"a checkpoint is a folder or a model name, not {text!r}")
    if "://" in text:
        raise InputError(f"{text} is a web address: give the repository as OWNER/NAME")
    return text


def local_folder(text: str) -> Path | None:
    """The folder of this name; None if the text can only be the name of a model."""
    path = Path(os.path.expanduser(text))
    if os.path.isdir(path):
        return path
    if _known(text) is not None:
        return None  # even if a file has this name
    if os.path.lexists(path):
        raise InputError(f"{path} is not a folder: give the folder that holds it, {path.parent}")
    if not text.isprintable():
        raise InputError(f"no folder {text!r}, and no model has such a name")
    starts = text.startswith((".", "~", "/")) or _DRIVE.match(text)
    if starts or "\\" in text or text.count("/") > 1 or text.endswith("/"):
        raise NotACheckpointError(
            f"no folder {path}: check the path, or give a model name (mlx-aimv2 models)"
        )
    return None


def _known(text: str) -> str | None:
    """The description of a known name, for messages; None for any other text."""
    if is_demo(text):
        return "the checkpoint inside the package"
    preset = find(text)
    return None if preset is None else f"the model {preset.repo}"


def folder_or_model(text: str, folder: Path | None, on_event: OnEvent) -> Path | None:
    """The folder of this name, or None for the known model of this name; if both exist, report the choice."""
    known, path = _known(text), Path(text)
    if known is None or not os.path.lexists(path):
        return folder
    if folder is not None and is_checkpoint(folder):
        preset = find(text)
        longer = preset is not None and not os.path.lexists(preset.repo)
        means = (
            f"{preset.repo} means the model" if preset and longer else "rename the folder to have the model"
        )
        on_event(Notice(f"the folder {text} is used, and not {known}: ./{text} means the folder, {means}"))
        return folder
    what = f"the folder {text}, which is no checkpoint" if folder is not None else f"the file {text}"
    on_event(Notice(f"{known} is used, and not {what}: ./{text} means what is here"))
    return None


def repository(text: str) -> tuple[str, str | None]:
    """The repository of a short name, an alias or OWNER/NAME, and the commit that a short name pins.

    Raises:
        InputError: the text is none of these.
    """
    preset = find(text)
    if preset is not None:
        return preset.repo, preset.revision_of(text)
    if is_repo_name(text):
        return text, None
    what = "is not a valid repository name" if "/" in text else "is neither a folder nor a known model"
    raise InputError(f"{text!r} {what}: {similar(text)}")


def similar(text: str) -> str:
    """The advice about an unknown name."""
    close = suggest(text)
    guess = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{guess}`mlx-aimv2 models` lists the names; others are OWNER/NAME"
