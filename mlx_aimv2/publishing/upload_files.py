"""The files of a folder that may be uploaded: those that a conversion wrote, and no others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.file_names import CONFIG, INDEX, choose_weights, small_files
from ..describe import describe_checkpoint
from ..errors import InputError
from ..events import ignore
from ..loading import inspect
from .card import CARD, is_ours, read_card, read_metadata

OWN_LAYOUT = "mlx"


@dataclass(frozen=True)
class UploadFiles:
    """The files of a folder to upload.

    Attributes:
        folder: the checkpoint.
        sizes: bytes of each file to upload, by name, in the order of the upload.
        left: names of files and folders (with a slash) that are left behind.
    """

    folder: Path
    sizes: Mapping[str, int]
    left: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all files to upload."""
        return sum(self.sizes.values())


def prepare_upload(path: str | os.PathLike[str]) -> UploadFiles:
    """Choose the files of a folder to upload, without a network.

    Raises:
        InputError: ``path`` is no folder, no checkpoint of `mlx-aimv2 convert`, or not whole.
        CheckpointError: it is no checkpoint at all, or damaged.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the one that `mlx-aimv2 convert` wrote")
    checkpoint = inspect(folder, on_event=ignore)
    if checkpoint.layout.name != OWN_LAYOUT:
        raise InputError(
            f"{folder} is in the layout {checkpoint.layout.name}, which is not this package's: upload what"
            f" `mlx-aimv2 convert --hf-path {folder} --mlx-path FOLDER` writes"
        )
    if (problem := describe_checkpoint(checkpoint)["problem"]) is not None:
        raise InputError(f"{folder} is not whole: {problem}; convert it again")
    if not is_ours(read_metadata(read_card(folder))):
        raise InputError(
            f"{folder} has no {CARD} that `mlx-aimv2 convert` wrote (tagged mlx-aimv2): convert its source again,"
            " and what is uploaded says where it came from and under which licence"
        )
    weights = [file.name for file in checkpoint.header.files]
    entries = sorted(folder.iterdir())
    files = {entry.name for entry in entries if entry.is_file() and not entry.is_symlink()}
    index = [INDEX] if choose_weights([entry.name for entry in entries], str(folder)) == INDEX else []
    linked = [name for name in (CONFIG, CARD, *index, *weights) if name not in files]
    if linked:
        raise InputError(f"{folder / linked[0]} is a link or no file: upload the folder that convert wrote")
    names = [*small_files(filter(str.isprintable, files)), *index, *weights]
    left = [entry.name + "/" * entry.is_dir() for entry in entries if entry.name not in names]
    return UploadFiles(folder, {name: (folder / name).stat().st_size for name in names}, tuple(left))
