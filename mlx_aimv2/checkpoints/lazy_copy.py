"""Lazy reading of weights in other formats than safetensors, through a temporary copy.

MLX reads tensors lazily only from safetensors. All else is copied once, piece by piece, into a safetensors file
without a name, which the system removes with the last of its tensors.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import mlx.core as mx

from ..errors import DamagedFileError, OutputError
from ..messages import size
from .headers import MLX_DTYPES, TensorInfo
from .shards import Entry, header_bytes

PIECE = 2**20  # bytes
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


class DataReader(ExitStack):
    """Reads the data of tensors piece by piece, from plain files and from zip files; opens every file once."""

    def __init__(self) -> None:
        super().__init__()
        self._plain: dict[Path, IO[bytes]] = {}
        self._zips: dict[Path, zipfile.ZipFile] = {}

    def pieces(self, info: TensorInfo, size: int | None = None) -> Iterator[bytes]:
        """A tensor's data in the order of the file, or the first ``size`` bytes of it.

        Raises:
            DamagedFileError: the data is shorter than the header says, or cannot be unpacked.
        """
        left = info.nbytes if size is None else min(size, info.nbytes)
        try:
            with ExitStack() as stack:
                file = self._at_start(info, stack)
                while left:
                    piece = file.read(min(left, PIECE))
                    if not piece:
                        raise EOFError("it ends early")
                    left -= len(piece)
                    yield piece
                if size is None and info.member is not None:
                    file.read(1)  # zipfile compares the checksum at the end
        except (OSError, *ZIP_ERRORS) as error:
            raise DamagedFileError(
                f"{info.file}: the data of {info.member or 'a tensor'} cannot be read ({error}): download it again"
            ) from error

    def _at_start(self, info: TensorInfo, stack: ExitStack) -> IO[bytes]:
        if info.member is None:
            if info.file not in self._plain:
                self._plain[info.file] = self.enter_context(info.file.open("rb"))
            self._plain[info.file].seek(info.start)
            return self._plain[info.file]
        if info.file not in self._zips:
            self._zips[info.file] = self.enter_context(zipfile.ZipFile(info.file))
        member = stack.enter_context(self._zips[info.file].open(info.member))
        member.read(info.start)
        return member


def unpack(path: Path, tensors: Mapping[str, TensorInfo]) -> dict[str, mx.array]:
    """The tensors of one file as lazy arrays.

    Raises:
        DamagedFileError: the data is damaged.
        OutputError: the disk has no room for the copy.
    """
    entries = [
        Entry(name, MLX_DTYPES[info.dtype], info.shape[::-1] if info.column_major else info.shape)
        for name, info in tensors.items()
    ]
    folder = _temporary_folder(path, sum(entry.nbytes for entry in entries))
    try:
        with tempfile.TemporaryFile(dir=folder) as copy:
            copy.write(header_bytes(entries, {}))
            with DataReader() as reader:
                for info in tensors.values():
                    for piece in reader.pieces(info):
                        copy.write(piece)
            copy.flush()
            # on macOS, /dev/fd/N shares the position of this descriptor
            os.lseek(copy.fileno(), 0, os.SEEK_SET)
            loaded = mx.load(f"/dev/fd/{copy.fileno()}", format="safetensors")
    except OSError as error:
        raise OutputError(
            f"{folder}: {path.name} cannot be unpacked there ({error.strerror or error}):"
            " set TMPDIR to another folder"
        ) from error
    except (RuntimeError, ValueError) as error:
        raise DamagedFileError(f"{path} cannot be opened: {error}") from error
    if not isinstance(loaded, dict) or loaded.keys() != tensors.keys():
        raise DamagedFileError(f"{path} cannot be opened: some of its tensors are missing in the copy")
    return {
        name: mx.contiguous(loaded[name].transpose()) if info.column_major else loaded[name]
        for name, info in tensors.items()
    }


def _temporary_folder(path: Path, needed: int) -> Path:
    """The folder for the copy: `/tmp` is a piece of memory on many machines, `/var/tmp` on none."""
    usual = "/var/tmp" if os.access("/var/tmp", os.W_OK) else tempfile.gettempdir()
    folder = Path(os.environ.get("TMPDIR") or usual)
    free = shutil.disk_usage(folder).free if folder.is_dir() else 0
    if free <= needed:
        raise OutputError(
            f"{folder} has {size(free)} free, and unpacking {path.name} takes {size(needed)}:"
            " set TMPDIR to a folder on another disk, or convert the weights on another machine"
        )
    return folder
