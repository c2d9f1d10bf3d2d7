"""`BatchEmbedder`: adds embeddings to batches of a table's rows, as `map_batches` of Ray Data calls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..checkpoints.load_options import LoadOptions
from ..errors import InputError
from ..loading import load
from ..sources.readahead import Failed
from .embedder import Embedder

EMBEDDING, ERROR = "embedding", "error"  # the columns that are added


class BatchEmbedder:
    """Embeddings of the images in a column of a table, batch by batch: a class for `map_batches` of Ray Data.

        import ray
        from mlx_aimv2 import BatchEmbedder

        dataset.map_batches(
            BatchEmbedder,
            fn_constructor_kwargs={"path_or_repo": "lit", "column": "path"},
            compute=ray.data.ActorPoolStrategy(size=4),
            batch_size=256,
            batch_format="pyarrow",
        )

    Every actor of Ray loads the model once. Nothing in this class needs Ray: it takes dictionaries of columns too.

    Attributes:
        column: the column of images.
        fingerprint: of the embeddings, as plain values. Embeddings with different fingerprints must not be compared.
    """

    def __init__(
        self,
        path_or_repo: str,
        column: str = "path",
        pooling: str = "auto",
        normalize: bool = True,
        batch_size: int | None = None,
        revision: str | None = None,
        options: LoadOptions | None = None,
    ) -> None:
        """Load the model.

        Args:
            path_or_repo: a checkpoint folder, a repository or a short name, as for `load`; every machine needs it.
            column: the column of images. Its values are paths that the machine can read, bytes of files, structs
                `{bytes, path}` as Hugging Face's `datasets` writes them, or arrays (H, W, 3) uint8.
            pooling: of the vectors, as for `Embedder`, but not "tokens".
            normalize: scale every vector to unit length.
            batch_size: images that are computed together; None for what suits the device. The batches of the table
                may be larger.
            revision: a branch, tag or commit of the repository.
            options: all other settings of `load`.

        Raises:
            Aimv2Error: as for `load`.
            InputError: pooling "tokens", an unknown pooling, or one that the model does not have.
        """
        if pooling == "tokens":
            raise InputError(
                'pooling "tokens" gives a grid, and a row of a table has one vector: use another'
            )
        self.column = column
        self._embedder = Embedder(
            *load(path_or_repo, revision=revision, options=options), pooling, normalize, batch_size
        )
        self.fingerprint = self._embedder.fingerprint

    def __call__(self, batch: Any) -> Any:
        """Embed the images of a batch.

        Args:
            batch: a dictionary of columns (arrays or lists, N values each), or a `pyarrow.Table` of N rows.

        Returns:
            The same rows in the same order, with the columns `embedding` and `error`. In a dictionary `embedding` is
            (N, D) float32, and NaN where there is no vector; in a table it is a list of D float32, or null. `error`
            is the reason for that, and empty where there is a vector.

        Raises:
            InputError: the batch is of another type, it lacks the column of images, or has one called `embedding` or
                `error`.
        """
        is_table = hasattr(batch, "column_names") and hasattr(batch, "append_column")
        if not is_table and not isinstance(batch, Mapping):
            kind = type(batch).__name__
            raise InputError(
                f'a batch has to be a dictionary or a pyarrow.Table, not {kind}: use batch_format="pyarrow"'
            )
        self._check_columns(batch.column_names if is_table else list(batch))
        values = batch[self.column]
        images = [_image(value) for value in (values.to_pylist() if is_table else values)]
        vectors = np.full((len(images), self._embedder.dimension), np.nan, dtype=np.float32)
        errors = [""] * len(images)
        for item in self._embedder.stream(images):
            if isinstance(item, Failed):
                errors[item.index] = " ".join(str(item.error).split())
            else:
                vectors[item.index] = item.vector
        if is_table:
            return _with_columns(batch, vectors, errors)
        return {**batch, EMBEDDING: vectors, ERROR: np.array(errors, dtype=object)}

    def _check_columns(self, names: Sequence[str]) -> None:
        if self.column not in names:
            raise InputError(f"no column {self.column!r}, but {', '.join(names) or 'none'}: name one of them")
        for name in (EMBEDDING, ERROR):
            if name in names:
                raise InputError(f"there is a column {name!r} already: rename it")


def _image(value: Any) -> Any:
    """The image of a value; what is no image, such as None, becomes the error of its row."""
    if isinstance(value, Mapping):
        return value.get("path") if value.get("bytes") is None else value["bytes"]
    return value


def _with_columns(table: Any, vectors: np.ndarray, errors: Sequence[str]) -> Any:
    """A `pyarrow.Table` with the columns of vectors (N, D), null where there is an error, and of errors."""
    import pyarrow as pa

    failed = pa.array([bool(error) for error in errors], pa.bool_())
    embeddings = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1], mask=failed)
    return table.append_column(EMBEDDING, embeddings).append_column(ERROR, pa.array(errors, pa.string()))
