"""Reading the header of an .npz file of weights, and writing one: a zip file with an .npy for each tensor.

Older MLX examples write such files. Names, dtypes and shapes come from the zip's directory and the headers of its
members; no data is read, and nothing is unpickled. Source of the format: NumPy's documentation
(`numpy.lib.format`), and what `mx.savez` writes.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import mlx.core as mx

from ..errors import DamagedFileError, PickleRefusedError
from .file_names import NPZ
from .headers import DTYPE_NAMES, TensorInfo, check_apart, check_count, check_tensor_name, tensor_bytes
from .lazy_copy import ZIP_ERRORS
from .shards import Entry, planned_bytes

DESCRIPTIONS = {  # numpy's name -> safetensors'; MLX writes bfloat16, which numpy lacks, as two bytes
    "<f4": "F32", "<f2": "F16", "<V2": "BF16", "|V2": "BF16", "<i8": "I64", "<i4": "I32", "<i2": "I16", "|i1": "I8",
    "<u8": "U64", "<u4": "U32", "<u2": "U16", "|u1": "U8", "|b1": "BOOL", "<f8": "F64",
}  # fmt: skip
WRITTEN = {dtype: description for description, dtype in reversed(DESCRIPTIONS.items())}
MAX_DIRECTORY = 32 * 2**20  # bytes
MAX_TAIL = 2**16 + 22 + 76  # bytes of a zip's comment and last records
MAX_NPY_HEADER = 10_000  # bytes; numpy's own limit
DEFLATE_RATIO = 1032  # the most bytes that a deflated byte can become
MAGIC = b"\x93NUMPY"
HEADER = re.compile(
    rb"\{'descr': '([<>|=][A-Za-z]\d*)', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\),? ?\} *\n?"
)
ENCRYPTED = 0x1
NPY_ALIGNMENT = 64  # bytes; where data begins in an .npy
LOCAL_HEADER = 30  # bytes, and the member's name


def read_npz(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """The tensors of an .npz file, and the metadata for the order of its patch kernel.

    Raises:
        DamagedFileError: the file is cut off, or its directory or a header is damaged.
        PickleRefusedError: it holds Python objects.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - MAX_TAIL))
            _check_directory(path, file.read(MAX_TAIL))
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                check_count(path, len(members))
                check_apart(path, [_span(path, member) for member in members])
                tensors: dict[str, TensorInfo] = {}
                for member in members:
                    name, info = _tensor(path, archive, member)
                    if name in tensors:
                        raise DamagedFileError(f"{path}: its header is damaged ({name} is in it twice)")
                    tensors[name] = info
    except OSError as error:
        raise DamagedFileError.reading(path, error) from error
    except (struct.error, *ZIP_ERRORS) as error:
        raise DamagedFileError(
            f"{path} is not an .npz file, or is damaged ({error}): download it again"
        ) from error
    return tensors, {"format": "mlx"}


def _check_directory(path: Path, tail: bytes) -> None:
    """Raise DamagedFileError if the directory is too long; zipfile reads it whole."""
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22:
        raise DamagedFileError(f"{path} is not an .npz file, or is cut off: download it again")
    count, size = struct.unpack_from("<HL", tail, at + 10)
    if at >= 76 and tail[at - 20 : at - 16] == b"PK\6\7":
        count, size = struct.unpack_from("<QQ", tail, at - 76 + 32)
    check_count(path, count)
    if size > MAX_DIRECTORY:
        raise DamagedFileError(f"{path}: its directory of {size} bytes is too large for any model's tensors")


def _span(path: Path, member: zipfile.ZipInfo) -> tuple[int, int, str]:
    """The bytes of a member (at least), and its name."""
    check_tensor_name(path, member.filename)
    begin = member.header_offset
    if begin < 0:
        raise DamagedFileError(f"{path} is cut off at its start: download it again")
    return begin, begin + LOCAL_HEADER + len(member.orig_filename) + member.compress_size, member.filename


def _tensor(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[str, TensorInfo]:
    """Name and entry of a member, checked against the bytes in the file."""
    name = member.filename.removesuffix(".npy")
    if name == member.filename:
        raise DamagedFileError(f"{path}: {name} in it is not an .npy file")
    if member.flag_bits & ENCRYPTED:
        raise DamagedFileError(f"{path}: {name} is encrypted: save the weights without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DamagedFileError(
            f"{path}: {name} is packed by method {member.compress_type}, which is not supported"
        )
    if member.compress_size > archive.start_dir - member.header_offset:
        raise DamagedFileError(f"{path} is cut off: {name} is not whole; download it again")
    ratio = DEFLATE_RATIO if member.compress_type == zipfile.ZIP_DEFLATED else 1
    if member.file_size > member.compress_size * ratio:
        raise DamagedFileError(
            f"{path}: {name} cannot become {member.file_size} bytes, it has {member.compress_size}"
        )
    with archive.open(member) as file:
        description, column_major, shape, start = _npy_header(path, name, file)
    if description.endswith("O"):
        raise PickleRefusedError(
            f"{path}: {name} holds pickled Python objects, which can run code when opened: save it as numbers"
        )
    dtype = DESCRIPTIONS.get(description, description)
    nbytes = tensor_bytes(path, name, dtype, shape)
    if start + nbytes != member.file_size:
        raise DamagedFileError(
            f"{path}: {name} of shape {list(shape)} needs {nbytes} bytes and has {member.file_size - start}"
        )
    return name, TensorInfo(
        dtype, shape, path, start, nbytes, member.filename, column_major and len(shape) > 1
    )


def _npy_header(path: Path, name: str, member: IO[bytes]) -> tuple[str, bool, tuple[int, ...], int]:
    """Numpy's name of the dtype, whether the order is column-major, the shape, and the start of the data."""
    start = member.read(8)
    size = struct.calcsize("<H" if start[6:7] == b"\1" else "<L")
    length = int.from_bytes(member.read(size), "little")
    match = HEADER.fullmatch(member.read(length)) if length <= MAX_NPY_HEADER else None
    if start[:6] != MAGIC or match is None:
        raise DamagedFileError(f"{path}: {name} is not an array of numbers, or its .npy header is damaged")
    shape = tuple(int(side) for side in match[3].split(b",") if side.strip())
    return match[1].decode(), match[2] == b"True", shape, 8 + size + length


def write_npz(folder: Path, entries: Sequence[Entry], tensors: Iterable[tuple[str, mx.array]]) -> None:
    """Write `model.npz` while ``tensors`` are computed one by one; `mx.load` opens it.

    Args:
        folder: the folder of the file.
        entries: every tensor, in the order of ``tensors``.
        tensors: names and arrays, lazy or not.

    Raises:
        CheckpointError: a tensor does not match its entry.
    """
    stream = iter(tensors)
    with zipfile.ZipFile(folder / NPZ[0], "w", zipfile.ZIP_STORED) as archive:
        for entry in entries:
            data = planned_bytes(entry, *next(stream))
            with archive.open(zipfile.ZipInfo(f"{entry.name}.npy"), "w", force_zip64=True) as member:
                member.write(_npy_start(entry))
                member.write(data)


def _npy_start(entry: Entry) -> bytes:
    description = WRITTEN[DTYPE_NAMES[entry.dtype]]
    text = f"{{'descr': '{description}', 'fortran_order': False, 'shape': {entry.shape!r}, }}".encode()
    text += b" " * (-(len(MAGIC) + 4 + len(text) + 1) % NPY_ALIGNMENT) + b"\n"
    return MAGIC + b"\1\0" + struct.pack("<H", len(text)) + text
