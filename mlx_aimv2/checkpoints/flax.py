"""Reading the header of Apple's `flax_model.msgpack`: nested maps of arrays.

Only the heads of maps and arrays are read, so that listing the tensors of a 10 GB file takes milliseconds. Sources
of the format: the MessagePack specification, and `flax.serialization` (an array is extension type 1, a scalar
type 3: a packed shape, dtype name and bytes).
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

from ..errors import DamagedFileError
from .headers import MAX_NAME, TensorInfo, check_count, check_dimensions, check_tensor_name, tensor_bytes

ROOT = "params"
CHUNKED = "__msgpack_chunked_array__"
MAX_DEPTH = 32  # of nested maps; Apple's files have 7
ARRAY, SCALAR = 1, 3  # extension types
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
LENGTHS = {  # first byte -> what follows, and the number of bytes of its length or value
    0xC4: ("bytes", 1), 0xC5: ("bytes", 2), 0xC6: ("bytes", 4), 0xC7: ("extension", 1), 0xC8: ("extension", 2),
    0xC9: ("extension", 4), 0xCC: ("integer", 1), 0xCD: ("integer", 2), 0xCE: ("integer", 4), 0xCF: ("integer", 8),
    0xD9: ("text", 1), 0xDA: ("text", 2), 0xDB: ("text", 4), 0xDC: ("list", 2), 0xDD: ("list", 4),
    0xDE: ("map", 2), 0xDF: ("map", 4),
}  # fmt: skip
FIXED = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}  # first byte of an extension -> its length
OTHERS = {0xC0: "nothing", 0xC2: "false", 0xC3: "true", 0xCA: "a number", 0xCB: "a number"}


def read_flax(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """The tensors of a Flax file, named by the keys below `params` with dots between them, and no metadata.

    Raises:
        DamagedFileError: the file is cut off, or not as Flax writes it.
    """
    try:
        with path.open("rb") as file:
            return _FlaxReader(path, file).tensors(), {}
    except OSError as error:
        raise DamagedFileError.reading(path, error) from error


class _FlaxReader:
    """Reads the keys, shapes and places of all tensors of a file, item after item."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        self._size = file.seek(0, 2)
        self._tensors: dict[str, TensorInfo] = {}
        self._values = 0

    def tensors(self) -> dict[str, TensorInfo]:
        self._file.seek(0)
        kind, count = self._head("its start")
        if kind != "map" or not count:
            raise DamagedFileError(f"{self._path} is not a file of Flax weights: download it again")
        self._map((), count)
        if self._left():
            raise self._damaged(f"{self._left()} bytes after its end")
        return self._tensors

    def _map(self, keys: tuple[str, ...], count: int) -> None:
        where = ".".join(keys) or "its start"
        if len(keys) > MAX_DEPTH:
            raise self._damaged(f"maps more than {MAX_DEPTH} deep")
        if 2 * count > self._left():
            raise self._cut_off(where)
        for _ in range(count):
            self._values += 1
            check_count(self._path, self._values)
            key = self._text(where)
            if key == CHUNKED:
                raise DamagedFileError(
                    f"{self._path}: {where} is stored in chunks, which is not supported: no AIMv2 tensor needs them"
                )
            self._value((*keys, key))

    def _value(self, keys: tuple[str, ...]) -> None:
        name = ".".join(keys[1:] if keys[0] == ROOT and len(keys) > 1 else keys)
        check_tensor_name(self._path, name)
        kind, length = self._head(name)
        if kind == "map":
            self._map(keys, length)
        elif kind != "extension":
            raise self._damaged(f"{name} is {kind}, not an array")
        elif name in self._tensors:
            raise self._damaged(f"{name} is in it twice")
        else:
            self._tensors[name] = self._array(name, length)

    def _array(self, name: str, length: int) -> TensorInfo:
        code = self._take(1, name)[0]
        if code not in (ARRAY, SCALAR):
            raise self._damaged(f"{name} is of extension type {code}, not an array")
        end = self._file.tell() + length
        if end > self._size:
            raise self._cut_off(name)
        if self._expect("list", name) != 3:
            raise self._damaged(f"{name} is not shape, dtype and data")
        dimensions = self._expect("list", name)
        check_dimensions(self._path, name, dimensions)  # before they are read one by one
        shape = tuple(self._expect("integer", name) for _ in range(dimensions))
        dtype = self._text(name)
        nbytes = tensor_bytes(self._path, name, DTYPES.get(dtype, dtype), shape)
        length, start = self._expect("bytes", name), self._file.tell()
        if nbytes != length or start + length != end:
            raise DamagedFileError(
                f"{self._path}: {name} of shape {list(shape)} needs {nbytes} bytes and has {end - start}"
            )
        self._file.seek(end)
        return TensorInfo(DTYPES[dtype], shape, self._path, start, nbytes)

    def _text(self, where: str) -> str:
        length = self._expect("text", where)
        if length > MAX_NAME:
            raise self._damaged(f"a name of {length} bytes in {where}")
        try:
            return self._take(length, where).decode()
        except UnicodeDecodeError as error:
            raise self._damaged(f"a name that is not text in {where}") from error

    def _expect(self, kind: str, where: str) -> int:
        """The length or value of the next item, which must be of this kind."""
        actual, number = self._head(where)
        if actual != kind:
            raise self._damaged(f"{actual} in {where} where {kind} should be")
        return number

    def _head(self, where: str) -> tuple[str, int]:
        """The kind of the next item, and its length or value."""
        first = self._take(1, where)[0]
        for kind, base, limit in (
            ("integer", 0, 0x80),
            ("map", 0x80, 0x90),
            ("list", 0x90, 0xA0),
            ("text", 0xA0, 0xC0),
        ):
            if base <= first < limit:
                return kind, first - base
        if first in FIXED:
            return "extension", FIXED[first]
        kind, size = LENGTHS.get(first, (OTHERS.get(first, "a negative number"), 0))
        return kind, int.from_bytes(self._take(size, where), "big")

    def _take(self, size: int, where: str) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise self._cut_off(where)
        return data

    def _left(self) -> int:
        return self._size - self._file.tell()

    def _cut_off(self, where: str) -> DamagedFileError:
        return DamagedFileError(f"{self._path} is cut off in {where}: download it again")

    def _damaged(self, what: str) -> DamagedFileError:
        return DamagedFileError(f"{self._path} is not as Flax writes it ({what}): download it again")
