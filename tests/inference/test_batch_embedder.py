"""Batches of rows: each row gets an embedding, or the reason why not; with Ray, also after a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from mlx_aimv2 import BatchEmbedder, Embedder, load
from mlx_aimv2.errors import InputError


@pytest.fixture
def paths(tmp_path, draw):
    """Five images, of which the second is broken."""
    for number in range(5):
        Image.fromarray(draw(number)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return [str(tmp_path / f"{number}.png") for number in range(5)]


@pytest.fixture
def expected(tiny_pair, paths):
    """The embeddings of the whole images, without a batch of rows."""
    return Embedder(*load(tiny_pair)).images([path for path in paths if not path.endswith("1.png")])


def check(embeddings, errors, expected):
    assert [bool(error) for error in errors] == [False, True, False, False, False]
    assert errors[1].startswith(("image of", "/")) and "\n" not in errors[1]
    np.testing.assert_allclose(np.array([embeddings[k] for k in (0, 2, 3, 4)]), expected, atol=1e-6)


def contents(paths):
    return [Path(path).read_bytes() for path in paths]


@pytest.mark.parametrize("kind", ["paths", "array of paths", "bytes", "structs", "structs of paths"])
def test_a_dictionary_keeps_its_rows_and_gets_two_columns(tiny_pair, paths, expected, kind):
    values = {
        "paths": paths,
        "array of paths": np.array(paths),
        "bytes": np.array(contents(paths), dtype=object),
        "structs": [{"bytes": data, "path": "elsewhere.png"} for data in contents(paths)],
        "structs of paths": [{"bytes": None, "path": path} for path in paths],
    }[kind]
    batch = {"number": np.arange(5), "image": values}
    result = BatchEmbedder(str(tiny_pair), column="image", batch_size=2)(batch)
    assert list(result) == ["number", "image", "embedding", "error"] and list(batch) == ["number", "image"]
    assert result["number"].tolist() == [0, 1, 2, 3, 4] and result["image"] is values
    assert result["embedding"].shape == (5, 32) and result["embedding"].dtype == np.float32
    assert np.isnan(result["embedding"][1]).all()
    check(result["embedding"], result["error"], expected)


@pytest.mark.parametrize("kind", ["paths", "bytes", "structs"])
def test_a_table_keeps_its_rows_and_has_null_without_a_vector(tiny_pair, paths, expected, kind, tmp_path):
    values = {
        "paths": paths,
        "bytes": contents(paths),
        "structs": [{"bytes": data, "path": None} for data in contents(paths)],
    }[kind]
    result = BatchEmbedder(str(tiny_pair), column="image")(pa.table({"number": range(5), "image": values}))
    assert result.schema.field("embedding").type == pa.list_(pa.float32(), 32)
    parquet.write_table(result, tmp_path / "result.parquet")
    result = parquet.read_table(tmp_path / "result.parquet")
    assert result.column_names == ["number", "image", "embedding", "error"]
    assert result["number"].to_pylist() == [0, 1, 2, 3, 4]
    embeddings = result["embedding"].to_pylist()
    assert embeddings[1] is None
    check(embeddings, result["error"].to_pylist(), expected)


def test_rows_without_an_image_fail_alone(tiny_vision, draw):
    result = BatchEmbedder(str(tiny_vision), column="image")({"image": [None, draw(0), 7, "missing.jpg"]})
    assert [bool(error) for error in result["error"]] == [True, False, True, True]
    assert "NoneType" in result["error"][0] and "missing.jpg" in result["error"][3]


@pytest.mark.parametrize("kind", [dict, pa.table])
def test_a_batch_without_rows_has_the_columns(tiny_vision, kind):
    columns = {"path": pa.array([], pa.string())} if kind is pa.table else {"path": []}
    result = BatchEmbedder(str(tiny_vision))(kind(columns))
    assert len(result["embedding"]) == len(result["error"]) == 0


def test_pooling_and_length_are_options_and_the_fingerprint_says_so(tiny_vision, draw):
    model, processor = load(tiny_vision)
    embedder = Embedder(model, processor, "max", normalize=False)
    batches = BatchEmbedder(str(tiny_vision), "image", pooling="max", normalize=False)
    np.testing.assert_allclose(
        batches({"image": [draw(0)]})["embedding"], embedder.images([draw(0)]), atol=1e-6
    )
    assert batches.fingerprint == embedder.fingerprint


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"file": ["a.jpg"]}, r"no column 'path', but file: name one of them"),
        ({}, r"no column 'path', but none"),
        ({"path": ["a.jpg"], "error": [1]}, r"there is a column 'error' already: rename it"),
        (pa.table({"path": ["a.jpg"], "embedding": [1]}), r"there is a column 'embedding' already"),
        ([1, 2], r'a batch has to be a dictionary or a pyarrow.Table, not list: use batch_format="pyarrow"'),
    ],
)
def test_batches_that_do_not_fit_are_refused(tiny_vision, batch, message):
    with pytest.raises(InputError, match=message):
        BatchEmbedder(str(tiny_vision))(batch)


def test_grids_are_refused_before_a_model_is_loaded():
    with pytest.raises(
        InputError, match='pooling "tokens" gives a grid, and a row of a table has one vector'
    ):
        BatchEmbedder("nowhere", pooling="tokens")


KILLED = """
import json, os, pathlib, signal, sys
import ray
from mlx_aimv2 import BatchEmbedder

model, folder, output = sys.argv[1:]
paths = sorted(map(str, pathlib.Path(folder).glob("*.png")))


class Killed(BatchEmbedder):
    def __call__(self, batch):
        if paths[13] in batch["path"].to_pylist():
            try:
                pathlib.Path(output, "killed").mkdir()
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:  # at the second attempt
                pass
        return super().__call__(batch)


ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
dataset = ray.data.from_items([{"path": path} for path in paths]).map_batches(
    Killed,
    fn_constructor_kwargs={"path_or_repo": model},
    compute=ray.data.ActorPoolStrategy(size=1),
    batch_size=4,
    batch_format="pyarrow",
)
rows = sorted(dataset.take_all(), key=lambda row: row["path"])
pathlib.Path(output, "rows.json").write_text(json.dumps(rows))
"""


@pytest.mark.slow
def test_ray_gives_the_rows_of_one_process_although_a_worker_is_killed(tiny_pair, tmp_path, draw):
    pytest.importorskip("ray")
    images = tmp_path / "images"
    images.mkdir()
    for number in range(24):
        Image.fromarray(draw(number)).save(images / f"{number:02d}.png")
    (images / "05.png").write_bytes(b"broken")
    command = [sys.executable, "-c", KILLED, str(tiny_pair), str(images), str(tmp_path)]
    environment = {**os.environ, "MLX_AIMV2_DEVICE": "cpu", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed").is_dir()
    rows = json.loads((tmp_path / "rows.json").read_text())
    paths = sorted(map(str, images.glob("*.png")))
    assert [row["path"] for row in rows] == paths
    assert [row["path"] for row in rows if row["error"]] == [paths[5]]
    assert [row["path"] for row in rows if row["embedding"] is None] == [paths[5]]
    whole = [path for path in paths if path != paths[5]]
    embeddings = np.array([row["embedding"] for row in rows if row["embedding"]])
    np.testing.assert_allclose(embeddings, Embedder(*load(tiny_pair)).images(whole), atol=1e-6)
