"""Weight files on disk: finding them in a folder, reading their headers, and reading their tensors lazily.

A safetensors header is read and checked here before MLX opens the file, because a damaged header must give one clear
line, and because layout, configuration and the strict comparison need only shapes.
Source of the format: the safetensors documentation ("Format").
"""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..errors import DamagedFileError, NotACheckpointError
from ..storage.json_files import read_json, whole_number
from ..storage.stand_ins import check_stand_in
from .file_names import INDEX, WEIGHT_SUFFIXES, choose_weights, shard_names, small_files
from .flax import read_flax
from .headers import MLX_DTYPES, Header, TensorInfo, check_apart, check_count, check_tensor_name, tensor_bytes
from .lazy_copy import unpack
from .npz import read_npz

MAX_HEADER = 100 * 2**20  # bytes; the limit of the safetensors library

DOWNLOADED = (".git", ".cache/huggingface")  # in folders of git and of `hf download --local-dir`
BLOB = re.compile(r"/models--[^/]+/blobs/(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")  # of the Hugging Face cache


def find_weights(folder: Path, weights: str | None = None) -> tuple[Path, ...]:
    """The weight files of a checkpoint folder.

    Args:
        folder: the checkpoint.
        weights: the name of one file in it; None for the usual ones (see `choose_weights`).

    Raises:
        NotACheckpointError: the folder cannot be read or has no weights; the message names the usual files.
        PickleRefusedError: there are only pickled weights.
        DamagedFileError: the index does not fit its folder, or a link leads out of it.
    """
    try:
        names = {entry.name for entry in folder.iterdir() if not entry.is_dir()}
    except OSError as error:
        raise NotACheckpointError.reading(folder, error) from error
    entry = choose_weights(names, str(folder), weights)
    if entry != INDEX:
        return (_weight_file(folder, entry),)
    index = inside(folder, INDEX)
    return tuple(_weight_file(folder, name) for name in shard_names(read_json(index), str(index)))


def _weight_file(folder: Path, name: str) -> Path:
    path = inside(folder, name)
    if not path.is_file():
        raise NotACheckpointError(
            f"{folder} lacks the weight file {name}: download it again, or complete the copy"
        )
    return path


def inside(folder: Path, name: str) -> Path:
    """The path of a file of this folder, which need not exist.

    A symbolic link may point to another file of the folder, or into the Hugging Face cache: `snapshots/COMMIT/NAME`
    -> `blobs/HASH`. In a folder that was not downloaded, a link of its owner may also lead to a weight file anywhere,
    and to another file of a checkpoint if weights are beside it. Without these limits, a downloaded folder could make
    a conversion read, and an upload publish, any file of the user.

    Raises:
        DamagedFileError: the name or a link leads elsewhere.
    """
    if not name or name in (".", "..") or any(sign in name for sign in ("/", "\\", "\0")):
        raise DamagedFileError(f"{folder}: {name!r} is not the name of a file in this folder")
    path = folder / name
    if path.is_symlink():
        home, target = Path(os.path.realpath(folder)), Path(os.path.realpath(path))
        blobs = home.parent.parent / "blobs"
        in_cache = home.parent.name == "snapshots" and target.parent == blobs
        if not in_cache and not target.is_relative_to(home) and not _is_own_link(path, home, target):
            raise DamagedFileError(
                f"{path} is a link out of its folder, to {target}: put the file itself there"
            )
    return path


def _is_own_link(path: Path, home: Path, target: Path) -> bool:
    """Whether the user may have made a link to ``target``; ``home`` is the real path of its folder."""
    downloaded = home.parent.name == "snapshots" or any((home / mark).exists() for mark in DOWNLOADED)
    owners = {os.geteuid(), home.stat().st_uid}
    if downloaded or path.lstat().st_uid not in owners or not target.is_file():
        return False
    if BLOB.search(str(target)) or target.suffix in WEIGHT_SUFFIXES:
        return True
    return path.suffix not in WEIGHT_SUFFIXES and any(
        entry.suffix in WEIGHT_SUFFIXES for entry in target.parent.iterdir()
    )


def check_links(folder: Path) -> None:
    """Raise DamagedFileError if a small file, such as configuration or tokenizer, is a link out of its folder."""
    for name in small_files(entry.name for entry in folder.iterdir()):
        inside(folder, name)


def read_header(files: tuple[Path, ...]) -> Header:
    """The headers of one or several weight files as one.

    Raises:
        DamagedFileError: a file is cut off or stands in for another, its header is damaged, or a name occurs twice.
        PickleRefusedError: an .npz holds pickled objects.
    """
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    for path in files:
        check_stand_in(path)
        own, own_metadata = _READERS.get(path.suffix, _read_safetensors)(path)
        if twice := sorted(tensors.keys() & own.keys()):
            raise DamagedFileError(f"{path}: the tensor {twice[0]} is in another file of the checkpoint too")
        tensors.update(own)
        metadata.update(own_metadata)
    return Header(files, tensors, metadata)


def _read_safetensors(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise DamagedFileError(f"{path} is not a safetensors file, or is cut off: download it again")
            raw = file.read(length)
    except OSError as error:
        raise DamagedFileError.reading(path, error) from error
    try:
        header = json.loads(raw, object_pairs_hook=_no_name_twice, parse_int=whole_number)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path}: its header is damaged ({error})") from error
    if not isinstance(header, dict):
        raise DamagedFileError(f"{path}: its header is damaged (not an object)")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DamagedFileError(f"{path}: its header is damaged (metadata that is not an object of texts)")
    check_count(path, len(header))
    data = 8 + length
    tensors = {name: _tensor_info(path, name, entry, (data, size)) for name, entry in header.items()}
    check_apart(path, ((info.start, info.start + info.nbytes, name) for name, info in tensors.items()))
    return tensors, metadata


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a header; Python's JSON keeps the last of two entries of one name."""
    entries: dict[str, Any] = {}
    for name, value in pairs:
        if name in entries:
            raise ValueError(f"{name!r:.80} is in it twice")
        entries[name] = value
    return entries


def _tensor_info(path: Path, name: str, entry: object, span: tuple[int, int]) -> TensorInfo:
    """An entry of a header, checked against the bytes of the data, which are ``span`` of the file."""
    first, room = span[0], span[1] - span[0]
    check_tensor_name(path, name)
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]  # type: ignore[index]
        sides = [*shape]
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{path}: the entry of {name} in its header is damaged") from error
    nbytes = tensor_bytes(path, name, dtype, sides)
    if not all(type(n) is int and n >= 0 for n in (begin, end)):
        raise DamagedFileError(f"{path}: {name} has a shape or offsets that are not whole numbers")
    if nbytes != end - begin:
        raise DamagedFileError(f"{path}: {name} of shape {shape} needs {nbytes} bytes and has {end - begin}")
    if end > room:
        raise DamagedFileError(
            f"{path} is cut off: {name} ends {end - room} bytes after it; download it again"
        )
    return TensorInfo(dtype, tuple(sides), path, first + begin, nbytes)


_READERS = {".npz": read_npz, ".msgpack": read_flax}


def outline(header: Header) -> dict[str, mx.array]:
    """Lazy arrays with the shapes and dtypes of a header, and no data."""
    return {name: mx.zeros(info.shape, MLX_DTYPES[info.dtype]) for name, info in header.tensors.items()}


def open_tensors(header: Header) -> dict[str, mx.array]:
    """Every tensor of a checkpoint as a lazy array: MLX reads the data when an array is evaluated.

    Formats that MLX cannot read lazily (.npz, .msgpack) are unpacked to a temporary file at once.

    Raises:
        DamagedFileError: a file cannot be opened, its data is damaged, or it has changed since its header was read.
        OutputError: the disk has no room for the temporary file.
    """
    tensors: dict[str, mx.array] = {}
    for path in header.files:
        if path.suffix in _READERS:
            own = {name: info for name, info in header.tensors.items() if info.file == path}
            tensors.update(unpack(path, own))
            continue
        try:
            loaded = mx.load(str(path), format="safetensors")
            tensors.update(loaded if isinstance(loaded, dict) else {})
        except (RuntimeError, ValueError) as error:
            raise DamagedFileError(f"{path} cannot be opened: {error}") from error
    actual = {name: (tuple(x.shape), x.dtype) for name, x in tensors.items()}
    if actual != {name: (info.shape, MLX_DTYPES[info.dtype]) for name, info in header.tensors.items()}:
        raise DamagedFileError(f"{header.files[0].parent}: its weights have changed meanwhile: run it again")
    return tensors
