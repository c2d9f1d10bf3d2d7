"""Files of embeddings: a table of formats.

Every format holds the vectors, what each is of, and the fingerprint of what made them; `.npy` and `.jsonl` have it
in a file beside them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoints.atomic import replacing
from .errors import InputError, MissingExtraError, OutputError

Fingerprint = Mapping[str, Any]
Write = Callable[[Path, Sequence[str], np.ndarray, Fingerprint], None]


def json_line(path: str, embedding: np.ndarray, key: str = "path") -> str:
    """One line of JSON for one vector; float32 values in their shortest exact decimals.

    A file's name that is not UTF-8 keeps its bytes as lone surrogates, escaped (`os.fsencode` gives them back).
    """
    values = np.array([float(str(x)) for x in embedding.ravel()]).reshape(embedding.shape).tolist()
    return json.dumps({key: path, "embedding": values}, ensure_ascii=_has_surrogates(path))


def _has_surrogates(name: str) -> bool:
    return any("\ud800" <= sign <= "\udfff" for sign in name)


def _write_npz(path: Path, names: Sequence[str], embeddings: np.ndarray, fingerprint: Fingerprint) -> None:
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(
            file,
            embeddings=embeddings,
            paths=np.array(names, dtype=np.str_),
            fingerprint=np.array(json.dumps(fingerprint)),
        )


def _write_npy(path: Path, names: Sequence[str], embeddings: np.ndarray, fingerprint: Fingerprint) -> None:
    check_names(path, names)
    with (  # all three are written before any of them appears, and the vectors appear last
        replacing(path) as vectors,
        replacing(path.with_suffix(".fingerprint.json")) as note,
        replacing(path.with_suffix(".paths.txt")) as lines,
    ):
        lines.write_text("".join(f"{name}\n" for name in names), encoding="utf-8", errors="surrogateescape")
        note.write_text(json.dumps(fingerprint, indent=2), encoding="utf-8")
        with vectors.open("wb") as file:
            np.save(file, embeddings)


def _write_safetensors(
    path: Path, names: Sequence[str], embeddings: np.ndarray, fingerprint: Fingerprint
) -> None:
    from safetensors.numpy import save

    note = {"paths": json.dumps(list(names)), "fingerprint": json.dumps(fingerprint)}
    with replacing(path) as partial:
        partial.write_bytes(save({"embeddings": np.ascontiguousarray(embeddings)}, metadata=note))


def _write_jsonl(path: Path, names: Sequence[str], embeddings: np.ndarray, fingerprint: Fingerprint) -> None:
    with replacing(path) as lines, replacing(path.with_suffix(".fingerprint.json")) as note:
        note.write_text(json.dumps(fingerprint, indent=2), encoding="utf-8")
        with lines.open("w", encoding="utf-8") as file:
            file.writelines(json_line(name, row) + "\n" for name, row in zip(names, embeddings, strict=True))


def _write_parquet(
    path: Path, names: Sequence[str], embeddings: np.ndarray, fingerprint: Fingerprint
) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("Writing .parquet", "pyarrow", "parquet") from error
    if embeddings.ndim != 2:
        raise InputError("a .parquet file holds one vector per row: use .npz for token grids")
    check_names(path, names)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), embeddings.shape[1])
    table = pa.table({"path": pa.array(list(names), pa.string()), "embedding": rows})
    table = table.replace_schema_metadata({"fingerprint": json.dumps(fingerprint)})
    with replacing(path) as partial:
        pq.write_table(table, partial)


WRITERS: dict[str, Write] = {
    ".npz": _write_npz,
    ".npy": _write_npy,
    ".safetensors": _write_safetensors,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}


def check_names(path: Path, names: Sequence[str]) -> None:
    """Refuse names that the format of ``path`` cannot hold.

    Raises:
        InputError: one of them has line breaks, or is not UTF-8.
    """
    suffix = path.suffix.lower()
    lines = next((name for name in names if "\n" in name or "\r" in name), None)
    if suffix == ".npy" and lines is not None:
        raise InputError(
            f"{lines!r} has a line break in its name, which .npy with .paths.txt cannot hold: use .npz"
        )
    odd = next((name for name in names if _has_surrogates(name)), None)
    if suffix == ".parquet" and odd is not None:
        raise InputError(f"{odd!r} is not UTF-8, which .parquet cannot hold: use .npz")


def check_target(path: Path, names: Sequence[str] = ()) -> None:
    """Refuse a target that could not be written, before hours of work go into it.

    Raises:
        InputError: the ending is of no known format, or the format cannot hold one of ``names``.
        OutputError: the folder is not there or cannot be written to.
        MissingExtraError: the format needs a package that is not installed.
    """
    if path.suffix.lower() not in WRITERS:
        raise InputError(
            f"{path}: no format ends in {path.suffix or 'nothing'}; use {', '.join(WRITERS)},"
            " or end the name in / for a folder of shards"
        )
    check_names(path, names)
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("Writing .parquet", "pyarrow", "parquet") from error
    probe = path.with_name(f".{path.name}.probe")
    try:
        if path.is_dir():
            raise OutputError(f"{path} is a folder: end its name in / for shards, or name a file")
        probe.touch()
        probe.unlink()
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def check_grid(name: str, vector: np.ndarray, others: Sequence[np.ndarray]) -> None:
    """Refuse a token grid that cannot stand in one file with those before it.

    Raises:
        InputError: its size is another.
    """
    if others and vector.shape != others[0].shape:
        raise InputError(
            f"{name} has a token grid of {vector.shape[:2]} and others of {others[0].shape[:2]}:"
            " one file holds grids of one size; use JSON lines in a pipe, or another pooling"
        )


def write(path: Path, names: Sequence[str], embeddings: np.ndarray, fingerprint: Fingerprint) -> None:
    """Write vectors (N, D), with what each is of, in the format that ``path`` ends in.

    Raises:
        InputError: the ending is of no known format, or there is not a name for each vector.
        OutputError: the file cannot be written; nothing is left of it.
    """
    if path.suffix.lower() not in WRITERS:
        check_target(path)
    if len(names) != len(embeddings):
        raise InputError(f"{len(names)} names for {len(embeddings)} vectors")
    WRITERS[path.suffix.lower()](path, names, embeddings, fingerprint)
