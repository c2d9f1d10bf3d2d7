"""Writing a file of vectors: the formats `.npz`, `.npy`, `.safetensors`, `.jsonl`, `.parquet`. `reading` reads them.

Every format stores the vectors, their names, and their fingerprint; `.npy` and `.jsonl` have the fingerprint in a
file beside them.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ExistsError, InputError, MissingExtraError, OutputError
from ..storage.atomic import followed, refuse_existing, replacing
from ..storage.swap import replacing_together
from .fingerprint import Fingerprint

ALIGNMENT = 8  # of the data in a safetensors file


@dataclass(frozen=True)
class Rows:
    """Vectors that need not be in memory at once.

    Attributes:
        shape: (N, ...).
        blocks: returns the vectors in order, float32, in blocks of rows; it may be called several times.
    """

    shape: tuple[int, ...]
    blocks: Callable[[], Iterable[np.ndarray]]


Columns = Mapping[str, Sequence[str] | Sequence[int]]  # beside the vectors of a shard
Write = Callable[[Path, Sequence[str], Rows, Fingerprint], None]
WriteColumns = Callable[[Path, Sequence[str], Rows, Fingerprint, Columns | None], None]
PLACES = "places"  # the column of paths that need not be UTF-8


def json_line(path: str, embedding: np.ndarray, key: str = "path") -> str:
    """A line of JSON for a vector, with the shortest exact decimals of its float32 values.

    The bytes of a file name that is not UTF-8 become escaped lone surrogates (`os.fsencode` decodes them).
    """
    values = np.array([float(str(x)) for x in embedding.ravel()]).reshape(embedding.shape).tolist()
    return json.dumps({key: path, "embedding": values}, ensure_ascii=has_surrogates(path))


def has_surrogates(name: str) -> bool:
    """Whether a file name is not UTF-8: its other bytes are lone surrogates in Python."""
    return any("\ud800" <= sign <= "\udfff" for sign in name)


def write_npz(
    path: Path, names: Sequence[str], rows: Rows, fingerprint: Fingerprint, columns: Columns | None = None
) -> None:
    """Write an `.npz` file, as `np.savez` does, with ``columns`` after the arrays of every such file."""
    arrays = {"paths": np.array(names, dtype=np.str_), "fingerprint": np.array(json.dumps(fingerprint))}
    for name, values in (columns or {}).items():
        encoded = [os.fsencode(str(value)) for value in values] if name == PLACES else values
        arrays[name] = np.array(encoded, dtype=np.int64 if _is_numbers(values) else None)
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("embeddings.npy", "w", force_zip64=True) as member:
            for data in _npy(rows):
                member.write(data)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _is_numbers(values: Sequence[str] | Sequence[int]) -> bool:
    return bool(values) and isinstance(values[0], int)


def _npy(rows: Rows) -> Iterator[bytes]:
    """The bytes of a `.npy` file."""
    header = io.BytesIO()
    entry = {"descr": "<f4", "fortran_order": False, "shape": rows.shape}
    np.lib.format.write_array_header_1_0(header, entry)
    yield header.getvalue()
    yield from map(_raw, rows.blocks())


def _raw(block: np.ndarray) -> bytes:
    return np.ascontiguousarray(block, dtype="<f4").tobytes()


def _write_npy(path: Path, names: Sequence[str], rows: Rows, fingerprint: Fingerprint) -> None:
    check_names(path, names)
    lines = "".join(f"{name}\n" for name in names).encode(errors="surrogateescape")
    _write_with_note(path, _npy(rows), fingerprint, {PATHS: lines})


def _write_with_note(
    path: Path, data: Iterable[bytes], fingerprint: Fingerprint, beside: Mapping[str, bytes]
) -> None:
    """Write a file, the fingerprint beside it, and other files beside it by their suffixes."""
    note = json.dumps(fingerprint, indent=2).encode()
    with replacing_together(swap_of(path), path.name) as folder:
        for suffix, content in {**beside, NOTE: note}.items():
            (folder / path.with_suffix(suffix).name).write_bytes(content)
        _write_chunks(folder / path.name, data)


def _write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)


def write_safetensors(
    path: Path, names: Sequence[str], rows: Rows, fingerprint: Fingerprint, columns: Columns | None = None
) -> None:
    """Write a `.safetensors` file, with ``columns`` as JSON in its metadata."""
    note = {"paths": json.dumps(list(names)), "fingerprint": json.dumps(fingerprint)}
    if columns:
        note["columns"] = json.dumps(columns)
    nbytes = int(np.prod(rows.shape)) * np.dtype(np.float32).itemsize
    entry = {"dtype": "F32", "shape": list(rows.shape), "data_offsets": [0, nbytes]}
    header = json.dumps({"__metadata__": note, "embeddings": entry}).encode()
    header += b" " * (-len(header) % ALIGNMENT)
    with replacing(path) as partial:
        _write_chunks(partial, (struct.pack("<Q", len(header)), header, *map(_raw, rows.blocks())))


def _write_jsonl(path: Path, names: Sequence[str], rows: Rows, fingerprint: Fingerprint) -> None:
    vectors = (vector for block in rows.blocks() for vector in block)
    lines = ((json_line(name, row) + "\n").encode() for name, row in zip(names, vectors, strict=True))
    _write_with_note(path, lines, fingerprint, {})


def write_parquet(
    path: Path, names: Sequence[str], rows: Rows, fingerprint: Fingerprint, columns: Columns | None = None
) -> None:
    """Write a `.parquet` file, with ``columns`` after those of every such file."""
    pa, pq = import_pyarrow("Writing")
    if len(rows.shape) != 2:
        raise InputError("a .parquet file holds one vector per row: use .npz for token grids")
    check_names(path, names)
    texts: dict[str, Any] = {"path": pa.array(list(names), pa.string())}
    for name, values in (columns or {}).items():
        encoded = [os.fsencode(str(value)) for value in values] if name == PLACES else list(values)
        texts[name] = pa.array(encoded, pa.int64() if _is_numbers(values) else None)
    fields = [(name, array.type) for name, array in texts.items()]
    fields.insert(1, ("embedding", pa.list_(pa.float32(), rows.shape[1])))
    schema = pa.schema(fields, metadata={"fingerprint": json.dumps(fingerprint)})
    with replacing(path) as partial, pq.ParquetWriter(partial, schema, use_dictionary=False) as writer:
        start = 0
        for block in rows.blocks():
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), rows.shape[1])
            arrays = [array.slice(start, len(block)) for array in texts.values()]
            writer.write_table(pa.table([arrays[0], vectors, *arrays[1:]], schema=schema))
            start += len(block)


def import_pyarrow(verb: str) -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet; raise MissingExtraError if the package is not installed."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError(f"{verb} .parquet", "pyarrow", "parquet") from error
    return pa, pq


WRITERS: dict[str, Write] = {
    ".npz": write_npz,
    ".npy": _write_npy,
    ".safetensors": write_safetensors,
    ".jsonl": _write_jsonl,
    ".parquet": write_parquet,
}
NOTE, PATHS = ".fingerprint.json", ".paths.txt"
BESIDE = {".npy": (NOTE, PATHS), ".jsonl": (NOTE,)}  # suffixes of the files beside a file of a format


def swap_of(path: Path) -> Path:
    """The hidden folder of a new file and the files beside it, until they are moved to their places."""
    return path.with_name(f".{path.name}.swap")


def check_names(path: Path, names: Sequence[str]) -> None:
    """Raise InputError if the format of ``path`` cannot store a name: with a line break, or not UTF-8."""
    suffix = path.suffix.lower()
    for name in names:
        if suffix == ".npy" and ("\n" in name or "\r" in name):
            raise InputError(
                f"{name!r} has a line break in its name, which .npy with .paths.txt cannot hold: use .npz"
            )
        if suffix == ".parquet" and has_surrogates(name):
            raise InputError(f"{name!r} is not UTF-8, which .parquet cannot hold: use .npz")


def check_target(path: Path, names: Sequence[str] = (), force: bool = True) -> None:
    """Refuse a file of vectors, as `check_file` does; also because of an existing file beside it."""
    check_file(path, WRITERS, names, force, folder_hint="end its name in / for shards, or name a file")
    # two files of one model may share a fingerprint file: `check_note` compares it when the model is known
    suffixes = [each for each in BESIDE.get(path.suffix.lower(), ()) if each != NOTE]
    refuse_existing(*map(followed(path).with_suffix, suffixes), force=force)


def check_file(
    path: Path, formats: Iterable[str], names: Sequence[str], force: bool, folder_hint: str = "name a file"
) -> None:
    """Refuse a file that cannot be written, before hours of work go into it.

    Args:
        path: of the file.
        formats: the possible suffixes.
        names: of the images, which not every format can store.
        force: replace an existing file.
        folder_hint: what to do about a folder in its place.

    Raises:
        InputError: the suffix belongs to no format, or the format cannot store one of ``names``.
        ExistsError: the file exists, and ``force`` is not set.
        OutputError: the folder is missing or cannot be written.
        MissingExtraError: the format needs a package that is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in formats:
        shards = ", or end the name in / for a folder of shards" if "/" in folder_hint else ""
        problem = f"no format ends in {suffix}" if suffix else "the name has no extension"
        raise InputError(f"{path}: {problem}; use {', '.join(formats)}{shards}")
    check_names(path, names)
    if suffix == ".parquet":
        import_pyarrow("Writing")
    probe = path.with_name(f".{path.name}.probe")
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a folder: {folder_hint}")
        refuse_existing(path, force=force)
        probe.touch()
        probe.unlink()
    except OutputError:
        raise
    except OSError as error:
        raise OutputError.writing(path, error) from error


def check_note(path: Path, fingerprint: Fingerprint, force: bool) -> None:
    """Raise ExistsError if the fingerprint file of ``path`` belongs to other vectors, and ``force`` is not set."""
    note = followed(path).with_suffix(NOTE)
    if force or NOTE not in BESIDE.get(path.suffix.lower(), ()) or not os.path.lexists(note):
        return
    try:
        same = json.loads(note.read_bytes()) == json.loads(json.dumps(fingerprint))
    except (OSError, ValueError):
        same = False
    if not same:
        raise ExistsError(
            f"{note} exists already, of another file of vectors: name another, or replace it with --force"
        )


def check_grid(name: str, vector: np.ndarray, shape: tuple[int, ...] | None) -> None:
    """Raise InputError for a token grid of another shape than the previous ones, which one file cannot store."""
    if shape is not None and vector.shape != shape:
        raise InputError(
            f"{name} has a token grid of {vector.shape[:2]} and others of {shape[:2]}:"
            " one file holds grids of one size; use JSON lines in a pipe, or another pooling"
        )


def write(path: Path, names: Sequence[str], embeddings: np.ndarray | Rows, fingerprint: Fingerprint) -> None:
    """Write vectors (N, D) with their names, in the format that the suffix of ``path`` names.

    An existing file is replaced, together with the files beside it; if ``path`` is a link, its target is replaced.

    Raises:
        InputError: the suffix belongs to no format, or the numbers of names and vectors differ.
        OutputError: the file cannot be written; an existing file stays as it is.
    """
    if path.suffix.lower() not in WRITERS:
        check_target(path)
    rows = embeddings if isinstance(embeddings, Rows) else Rows(embeddings.shape, lambda: [embeddings])
    if len(names) != rows.shape[0]:
        raise InputError(f"{len(names)} names for {rows.shape[0]} vectors")
    WRITERS[path.suffix.lower()](followed(path), names, rows, fingerprint)
