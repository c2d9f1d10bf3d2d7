"""Weights that MLX cannot read lazily from their place, such as those of a zip file, made readable.

MLX reads a tensor when it is needed only from safetensors. Everything else is copied once, piece by piece, into a
safetensors file without a name, which is gone when the last of its tensors is.
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
from types import TracebackType
from typing import IO

import mlx.core as mx

from ..errors import DamagedFileError, OutputError
from .headers import MLX_DTYPES, TensorInfo
from .shards import Entry, header_bytes

PIECE = 2**20  # bytes held at a time
ZIP_TROUBLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


class DataReader:
    """Reads the data of tensors piece by piece, from plain files and from zip files; every file is opened once."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._plain: dict[Path, IO[bytes]] = {}
        self._zips: dict[Path, zipfile.ZipFile] = {}

    def __enter__(self) -> DataReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def first(self, info: TensorInfo, size: int) -> bytes:
        """The first ``size`` bytes of a tensor, or all there are."""
        return b"".join(self.pieces(info, size))

    def pieces(self, info: TensorInfo, size: int | None = None) -> Iterator[bytes]:
        """A tensor's data in its order in the file, or the first ``size`` bytes of it.

        Raises:
            DamagedFileError: there is less than the header says, or it cannot be unpacked.
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
                    file.read(1)  # zipfile compares the checksum when it finds the end
        except (OSError, *ZIP_TROUBLE) as error:
            raise DamagedFileError(
                f"{info.file}: the data of {info.member or 'a tensor'} cannot be read ({error}): download it again"
            ) from error

    def _at_start(self, info: TensorInfo, stack: ExitStack) -> IO[bytes]:
        if info.member is None:
            if info.file not in self._plain:
                self._plain[info.file] = self._stack.enter_context(info.file.open("rb"))
            self._plain[info.file].seek(info.start)
            return self._plain[info.file]
        if info.file not in self._zips:
            self._zips[info.file] = self._stack.enter_context(zipfile.ZipFile(info.file))
        member = stack.enter_context(self._zips[info.file].open(info.member))
        member.read(info.start)
        return member


def unpack(path: Path, tensors: Mapping[str, TensorInfo]) -> dict[str, mx.array]:
    """The tensors of one file as lazy arrays.

    Raises:
        DamagedFileError: the data is damaged.
        OutputError: there is no room for the copy.
    """
    entries = [Entry(name, MLX_DTYPES[x.dtype], _stored_shape(x)) for name, x in tensors.items()]
    folder = _temporary_folder(path, sum(entry.nbytes for entry in entries))
    try:
        with tempfile.TemporaryFile(dir=folder) as copy:
            copy.write(header_bytes(entries, {}))
            with DataReader() as reader:
                for info in tensors.values():
                    for piece in reader.pieces(info):
                        copy.write(piece)
            copy.flush()
            # on macOS, /dev/fd/N is this very descriptor once more, and reads on from where it stands
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
        raise DamagedFileError(f"{path} cannot be opened: its tensors were not all found again")
    return {name: _as_named(loaded[name], info) for name, info in tensors.items()}


def _stored_shape(info: TensorInfo) -> tuple[int, ...]:
    return info.shape[::-1] if info.column_major else info.shape


def _as_named(x: mx.array, info: TensorInfo) -> mx.array:
    return x.transpose() if info.column_major else x


def _temporary_folder(path: Path, needed: int) -> Path:
    """Where to put the copy: `/tmp` is a piece of memory on many machines, `/var/tmp` on none.

    Raises:
        OutputError: there is too little room.
    """
    usual = "/var/tmp" if os.access("/var/tmp", os.W_OK) else tempfile.gettempdir()
    folder = Path(os.environ.get("TMPDIR") or usual)
    free = shutil.disk_usage(folder).free if folder.is_dir() else 0
    if free <= needed:
        raise OutputError(
            f"{folder} has {free / 1e9:.2f} GB free, and unpacking {path.name} takes {needed / 1e9:.2f} GB:"
            " set TMPDIR to a folder on another disk, or convert the weights on another machine"
        )
    return folder
