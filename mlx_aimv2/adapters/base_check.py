"""The base of an adapter: the checkpoint it was trained on, and whether a model is that checkpoint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.bundled import is_demo
from ..checkpoints.identity import Origin
from ..errors import Advice, InputError
from ..presets import find

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
UNNAMED = "unnamed"  # the base of a model that was not loaded from anywhere
CHECKPOINT = ("config.json", "model.safetensors", "model.safetensors.index.json")
ANY_BASE = Advice(
    "load that one, or use this one all the same with {}", "any_base", True, otherwise="load that one"
)


@dataclass(frozen=True)
class NamedBase:
    """A checkpoint as `load` takes it.

    Attributes:
        model: a folder, or a repository.
        revision: its commit; None for a folder, or where the files name none.
    """

    model: str
    revision: str | None = None


def find_base(folder: Path, name: str | None, revision: str | None) -> NamedBase | None:
    """The base of an adapter folder.

    Args:
        folder: the folder. With a fused checkpoint in it, it is its own base.
        name: of the base in the adapter's files: a folder or a repository. A relative path begins in the working
            directory, or else beside the folder.
        revision: of a repository.

    Returns:
        None where the files name no base.

    Raises:
        InputError: the base is a folder that does not exist.
    """
    if (folder / CHECKPOINT[0]).is_file() and any((folder / file).is_file() for file in CHECKPOINT[1:]):
        return NamedBase(str(folder))
    if not name or name == UNNAMED:
        return None
    for path in (Path(name).expanduser(), folder.absolute().parent / name):
        if path.is_dir():
            return NamedBase(str(path))
    is_repository = REPOSITORY.fullmatch(name) is not None and not name.startswith(".")
    if is_demo(name) or find(name) is not None or is_repository:
        return NamedBase(name, revision)
    advice = Advice("name its place with {}", "model", otherwise="name its place")
    raise InputError(f"{folder} was trained on {name}, which is not there", advice)


def require_base(
    source: str, name: str | None, checkpoint: str | None, origin: Origin | None, advice: Advice = ANY_BASE
) -> None:
    """Refuse a model that is not the base of an adapter.

    The hash of the checkpoint decides. Adapters that PEFT wrote have none: for them, two different repositories are
    refused, and everything else passes. The shapes of the tensors are compared in any case.

    Args:
        source: the adapter's name in the message.
        name: repository or folder of the base, if known.
        checkpoint: hash of the base, if known.
        origin: of the model; None for a model that was not loaded, which passes.
        advice: what the message advises.

    Raises:
        InputError: the model is another checkpoint; the message names both.
    """
    if origin is None:
        return
    if checkpoint is not None:
        if checkpoint != origin.checkpoint:
            raise InputError(
                f"{source} was trained on {name or 'another checkpoint'} (checkpoint {checkpoint}), and this is"
                f" {origin.name} (checkpoint {origin.checkpoint})",
                advice,
            )
    elif name and origin.revision is not None and REPOSITORY.fullmatch(name) and name != origin.name:
        raise InputError(f"{source} was trained on {name}, and this is {origin.name}", advice)
