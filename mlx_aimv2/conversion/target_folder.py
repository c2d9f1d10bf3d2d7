"""What lies beside the weights of a checkpoint that is written: configuration, small files, card; and room for it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx

from .._version import __version__
from ..adapters.task import HEAD, TASK
from ..checkpoints.file_names import CONFIG, is_written_name, small_files
from ..checkpoints.files import inside
from ..checkpoints.foreign_configs import without_source
from ..errors import ConfigError, DamagedFileError, ExistsError, InputError, OutputError
from ..events import OnEvent, Progress
from ..fidelity.report import Fidelity
from ..loading import Checkpoint
from ..processing.image_settings import find_settings, write_settings
from ..publishing.card import CARD, CardFacts, read_card
from ..quantization.scheme import Quantization
from ..storage.atomic import refuse_existing
from ..storage.stand_ins import LOOK, WEB_PAGE_FOUND, stand_in
from .options import Conversion

MAX_SMALL = 64 * 2**20  # bytes of a file that is copied


def card_facts(conversion: Conversion, name: str, fidelity: Fidelity | None) -> CardFacts:
    """What the model card of a conversion tells; ``name`` is what it calls the result."""
    facts = source_facts(conversion.checkpoint, name, conversion.parameters, conversion.nbytes)
    return dataclasses.replace(
        facts,
        dtype=conversion.dtype,
        quantization=conversion.quantization_words,
        kept=conversion.kept,
        fidelity=fidelity.markdown() if fidelity else None,
        unpacked_from=conversion.unpacked_from,
    )


def source_facts(checkpoint: Checkpoint, name: str, parameters: int, nbytes: int) -> CardFacts:
    """What the model card of anything made from a checkpoint tells of it.

    Args:
        checkpoint: the source.
        name: what the card calls the result.
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
        dtype=checkpoint.stored_dtype,
        bits_per_weight=8 * nbytes / parameters,
        nbytes=nbytes,
        version=__version__,
        repo=resolved.repo,
        revision=resolved.revision,
        source_card=read_card(resolved.folder),
        license_files=tuple(one for one in small_files(names) if one.startswith("LICENSE")),
        source=f"the checkpoint `{resolved.name}` inside the package mlx-aimv2"
        if resolved.bundled
        else "a local folder",
    )


def config_entry(conversion: Conversion) -> dict[str, Any]:
    """config.json of the result."""
    entry = without_source(conversion.checkpoint.config.to_dict()) | {"dtype": conversion.dtype}
    quantization = conversion.quantization
    if quantization is not None and not conversion.packed:
        schemes = {one.name.removesuffix(".weight"): one.scheme for one in conversion.planned if one.scheme}
        quantization = Quantization(quantization.default, schemes)
    return entry | (quantization.to_config() if quantization else {})


def copy_files(checkpoint: Checkpoint, folder: Path) -> None:
    """Preprocessor, tokenizer, licence: everything small but configuration and card, which are written anew.

    Settings for images that the source has elsewhere, or nowhere, become files of transformers here.

    Raises:
        DamagedFileError: one of them is a link out of the folder, stands in for another file, is too large, or
            cannot be read.
        OutputError: one of them cannot be written.
    """
    source = checkpoint.resolved.folder
    for name in small_files(path.name for path in source.iterdir() if path.is_file()):
        path = inside(source, name)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_SMALL + 1)
        except OSError as error:
            raise DamagedFileError.reading(path, error) from error
        found, is_prose = stand_in(data[:LOOK]), name.startswith(("LICENSE", "README"))
        if found is not None and not (is_prose and found == WEB_PAGE_FOUND):  # a licence may be a page
            raise DamagedFileError(f"{path} is {found}")
        if name in (CONFIG, CARD):
            continue
        if len(data) > MAX_SMALL:
            raise DamagedFileError(
                f"{path} is over {MAX_SMALL >> 20} MB, which is no such file: take it away"
            )
        (folder / name).write_bytes(data)
    with contextlib.suppress(ConfigError):  # damaged files are as damaged here
        settings, vision = find_settings(source, checkpoint.config).config, checkpoint.config.vision
        write_settings(folder, settings.resized(vision.image_size) if checkpoint.resampled else settings)


def target_folder(path: str | os.PathLike[str], force: bool = False) -> Path:
    """The folder that is to be written.

    Args:
        path: of the folder.
        force: whether a checkpoint that is there may be replaced.

    Raises:
        InputError: a name that MLX could not open again.
        ExistsError: something is there, and may not be replaced, or is more than a checkpoint.
    """
    target = Path(os.path.expanduser(path))
    try:
        str(target).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{str(target)!r} is no valid UTF-8, and could not be loaded: choose another name"
        ) from error
    refuse_existing(target, force=force)
    if os.path.lexists(target) and not target.is_dir():
        raise ExistsError(f"{target} is no folder: name another")
    names = sorted(one.name for one in target.iterdir()) if target.is_dir() else []
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
    """Refuse to replace what is being read.

    Raises:
        InputError: ``target`` is one of ``sources``.
    """
    if any(os.path.realpath(target) == os.path.realpath(source) for source in sources):
        raise InputError(f"{target} is what is to be read: name another folder")


def check_space(folder: Path, nbytes: int) -> None:
    """Refuse a result that the disk has no room for.

    Raises:
        OutputError: there is too little.
    """
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise OutputError(
            f"{folder.parent} has {free / 1e9:.2f} GB free, and the result takes {nbytes / 1e9:.2f} GB:"
            " make room, or write to another disk"
        )


def one_by_one(tensors: dict[str, mx.array], stage: str, on_event: OnEvent) -> Iterator[tuple[str, mx.array]]:
    """The tensors in order, each let go when the next is asked for."""
    total = len(tensors)
    for number, name in enumerate(list(tensors)):
        on_event(Progress(stage, number + 1, total, unit="tensors"))  # nobody asks again after the last
        yield name, tensors.pop(name)
