"""The largest published size, made up: written without holding it, converted without holding it."""

import json
import os
import shutil
import subprocess
import sys

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import Aimv2VisionConfig
from mlx_aimv2.checkpoints.files import find_weights, read_header
from mlx_aimv2.checkpoints.layouts import LAYOUTS
from mlx_aimv2.checkpoints.shards import Entry, write_shards
from mlx_aimv2.loading import make_model
from mlx_aimv2.storage.atomic import new_folder

THREE_BILLION = Aimv2VisionConfig(
    hidden_size=3072, intermediate_size=8192, num_attention_heads=24, use_head=False
)
NEEDED_GB, MOST_GB = 13.5, 3.0
RUN = """
import resource, sys
from mlx_aimv2 import convert
from mlx_aimv2.quantization.scheme import Scheme
from mlx_aimv2.conversion.options import ConvertOptions
convert(sys.argv[1], sys.argv[2], dtype="float16", options=ConvertOptions(scheme=Scheme(64, 4)))
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""


def write_random(folder, config):
    """A checkpoint in transformers' layout, in shards of 4 GB, one tensor in memory at a time."""
    tensors, _ = LAYOUTS["transformers"].from_canonical(dict(tree_flatten(make_model(config).parameters())))
    entries = [Entry(name, x.dtype, tuple(x.shape)) for name, x in tensors.items()]
    limit = mx.set_cache_limit(0)
    stream = ((entry.name, mx.random.normal(entry.shape) * entry.shape[-1] ** -0.5) for entry in entries)
    with new_folder(folder) as partial:
        write_shards(partial, entries, stream, 4 * 10**9, {"format": "pt"})
        (partial / "config.json").write_text(json.dumps(config.to_dict()))
    mx.set_cache_limit(limit)


@pytest.mark.slow
def test_three_billion_weights_are_converted_in_three_gigabytes(tmp_path):
    if shutil.disk_usage(tmp_path).free < NEEDED_GB * 1e9:
        pytest.skip(f"needs {NEEDED_GB} GB of disk")
    write_random(tmp_path / "source", THREE_BILLION)
    assert read_header(find_weights(tmp_path / "source")).nbytes > 10.8e9
    command = [sys.executable, "-c", RUN, tmp_path / "source", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    peak = int(done.stdout)
    print(f"peak {peak / 1e9:.2f} GB")
    assert peak < MOST_GB * 1e9
    weights = read_header(find_weights(tmp_path / "out")).nbytes
    assert weights == pytest.approx(2_720_658_432 * 4.5 / 8, rel=0.02)
    shutil.rmtree(tmp_path / "source")
