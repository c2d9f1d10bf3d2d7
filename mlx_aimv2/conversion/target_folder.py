"""The folder that convert, export and fuse write: checks before writing, free space, the files beside the weights."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx

from .._version import __version__
from ..adapters.task import TASK
from ..adapters.weights import HEAD
from ..checkpoints.file_names import CONFIG, is_written_name, small_files
from ..checkpoints.files import inside
from ..checkpoints.foreign_configs import without_source
from ..checkpoints.matching import dtype_name
from ..errors import ConfigError, DamagedFileError, ExistsError, InputError, OutputError
from ..events import OnEvent, Progress
from ..loading import Checkpoint
from ..messages import size
from ..processing.image_settings import find_settings, write_settings
from ..publishing.card import CARD, CardFacts, read_card
from ..quantization.scheme import Quantization
from ..storage.atomic import refuse_existing
from ..storage.stand_ins import LOOK, WEB_PAGE, stand_in
from .plan import Conversion

MAX_SMALL = 64 * 2**20  # bytes of a file that is copied


def source_facts(checkpoint: Checkpoint, name: str, parameters: int, nbytes: int) -> CardFacts:
    """The facts on a model card that every checkpoint made from ``checkpoint`` has.

    Args:
        checkpoint: the source.
        name: of the result, on the card.
        parameters: of the result.
        nbytes: of its weights.
    """
    resolved = checkpoint.resolved
    names = (path.name for path in resolved.folder.iterdir())
    return CardFacts(
        name=name,
        config=checkpoint.config,
        parameters=parameters,
        layout=checkpoint.layout.name,
        dtype=dtype_name(checkpoint.stored_dtype),
        bits_per_weight=8 * nbytes / parameters,
        nbytes=nbytes,
        version=__version__,
        repo=resolved.repo,
        revision=resolved.revision,
        source_card=read_card(resolved.folder),
        license_files=tuple(file for file in small_files(names) if file.startswith("LICENSE")),
        source=f"the checkpoint `{resolved.name}` inside the package mlx-aimv2"
        if resolved.bundled
        else "a local folder",
    )


def config_entry(conversion: Conversion) -> dict[str, Any]:
    """The config.json of the result."""
    entry = without_source(conversion.checkpoint.config.to_dict()) | {"dtype": dtype_name(conversion.dtype)}
    quantization = conversion.quantization
    if quantization is not None and not conversion.packed:
        schemes = {
            tensor.name.removesuffix(".weight"): tensor.scheme
            for tensor in conversion.planned
            if tensor.scheme
        }
        quantization = Quantization(quantization.default, schemes)
    return entry | (quantization.to_config() if quantization else {})


def copy_files(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy preprocessor, tokenizer and licence: all small files but config.json and card, which are written anew.

    Image settings that the source has in another file, or not at all, are written as transformers' files.

    Raises:
        DamagedFileError: a file is a link out of the folder, stands in for another file, is too large, or cannot be
            read.
        OutputError: a file cannot be written.
    """
    source = checkpoint.resolved.folder
    for name in small_files(path.name for path in source.iterdir() if path.is_file()):
        path = inside(source, name)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_SMALL + 1)
        except OSError as error:
            raise DamagedFileError.reading(path, error) from error
        content, is_prose = stand_in(data[:LOOK]), name.startswith(("LICENSE", "README"))
        if content is not None and not (is_prose and content == WEB_PAGE):  # a licence may be a web page
            raise DamagedFileError(f"{path} is {content}")
        if name in (CONFIG, CARD):
            continue
        if len(data) > MAX_SMALL:
            raise DamagedFileError(f"{path} is over {MAX_SMALL >> 20} MB: remove it")
        (folder / name).write_bytes(data)
    with contextlib.suppress(ConfigError):  # damaged settings stay damaged
        settings, vision = find_settings(source, checkpoint.config).config, checkpoint.config.vision
        write_settings(folder, settings.resized(vision.image_size) if checkpoint.resampled else settings)


def target_folder(path: str | os.PathLike[str], force: bool = False) -> Path:
    """Check that a folder may be written, and return its path with `~` expanded.

    Args:
        path: the folder to write.
        force: replace a checkpoint that is there.

    Raises:
        InputError: MLX could not open the name again.
        ExistsError: ``path`` exists and ``force`` is not set, or it holds more than a checkpoint.
    """
    target = Path(os.path.expanduser(path))
    try:
        str(target).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{str(target)!r} is not valid UTF-8, and could not be loaded: choose another name"
        ) from error
    refuse_existing(target, force=force)
    if os.path.lexists(target) and not target.is_dir():
        raise ExistsError(f"{target} is not a folder: name another")
    names = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
    names = [name for name in names if not name.startswith(".")]
    of_checkpoint = {*small_files(names), *filter(is_written_name, names), HEAD, TASK}
    other = next((name for name in names if name not in of_checkpoint), None)
    if other is None and names and CONFIG not in names:
        other = names[0]
    if other is not None:
        raise ExistsError(
            f"{target} holds {other}, and --force replaces nothing but a checkpoint: name another folder"
        )
    return target


def check_apart(target: Path, *sources: Path) -> None:
    """Raise InputError if ``target`` is one of ``sources``."""
    if any(os.path.realpath(target) == os.path.realpath(source) for source in sources):
        raise InputError(f"{target} is the source: name another folder")


def check_space(folder: Path, nbytes: int) -> None:
    """Raise OutputError if the disk of ``folder`` has less than ``nbytes`` free."""
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise OutputError(
            f"{folder.parent} has {size(free)} free, and the result takes {size(nbytes)}:"
            " make room, or write to another disk"
        )


def stream_tensors(
    tensors: dict[str, mx.array], stage: str, on_event: OnEvent
) -> Iterator[tuple[str, mx.array]]:
    """Yield the tensors in order, and free each before the next."""
    total = len(tensors)
    for number, name in enumerate(list(tensors)):
        # before the tensor: the writer does not ask again after the last
        on_event(Progress(stage, number + 1, total, unit="tensors"))
        yield name, tensors.pop(name)
