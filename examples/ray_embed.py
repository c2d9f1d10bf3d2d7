"""Embed images on a cluster with Ray Data, from files or a Parquet table to Parquet.

    python examples/ray_embed.py photos/ embeddings/ --model lit
    python examples/ray_embed.py table.parquet embeddings/ --column image --actors 4

It needs the extra ray: pip install 'mlx-aimv2[cpu,ray]'. All machines have to see the files under the same paths.
"""

import argparse
from pathlib import Path

import ray

from mlx_aimv2 import BatchEmbedder, find_sources

parser = argparse.ArgumentParser(description="Embed images with Ray Data.")
parser.add_argument("input", help="a folder of images, or a Parquet table")
parser.add_argument("output", help="a new folder for Parquet files")
parser.add_argument("--column", default="path", help="the table's column of paths or images")
parser.add_argument("--model", default="lit")
parser.add_argument("--actors", type=int, default=2, help="processes; each loads the model")
parser.add_argument("--cpus", type=int, default=1, help="cores of each process")
arguments = parser.parse_args()

if arguments.input.endswith(".parquet"):
    dataset = ray.data.read_parquet(str(Path(arguments.input).resolve()))
else:
    found = find_sources([arguments.input])
    files = [image for image in found.images if isinstance(image, str)]
    inside = len(found.images) - len(files)
    notices = [f"left out {inside} images within archives, tables and videos"] if inside else []
    print(*found.notices(), *notices, sep="\n")
    dataset = ray.data.from_items([{arguments.column: str(Path(file).resolve())} for file in files])

output = str(Path(arguments.output).resolve())
dataset.map_batches(
    BatchEmbedder,
    fn_constructor_kwargs={"path_or_repo": arguments.model, "column": arguments.column},
    compute=ray.data.ActorPoolStrategy(size=arguments.actors),
    num_cpus=arguments.cpus,
    batch_size=64,
    batch_format="pyarrow",  # a row without an embedding has null
).write_parquet(output, mode="error")  # if the folder exists

errors = ray.data.read_parquet(output, columns=["error"]).to_pandas()["error"]
print(f"wrote {len(errors)} rows to {arguments.output}, {(errors != '').sum()} without an embedding")
