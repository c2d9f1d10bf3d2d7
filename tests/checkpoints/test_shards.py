"""Weights split over files of a limited size."""

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import convert, load
from mlx_aimv2.checkpoints.files import find_weights, read_header
from mlx_aimv2.conversion.options import ConvertOptions
from mlx_aimv2.events import ignore
from mlx_aimv2.quantization.scheme import Scheme

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the notices of `warn`


def parameters(folder, **options):
    return dict(tree_flatten(load(folder, on_event=ignore, **options)[0].parameters()))


@pytest.mark.parametrize("limit", [1, 50_000, 200_000, 10**9])
def test_shards_hold_the_same_and_no_more_than_they_may(wide_pair, tmp_path, limit):
    whole = parameters(convert(wide_pair, tmp_path / "whole", options=ConvertOptions(scheme=Scheme())))
    folder = convert(
        wide_pair, tmp_path / "shards", options=ConvertOptions(scheme=Scheme(), max_shard_bytes=limit)
    )
    found = parameters(folder)
    assert all(mx.array_equal(found[name], x) for name, x in whole.items())
    files = find_weights(folder)
    assert (len(files) > 1) == (limit < 10**9)
    for path in files:
        header = read_header((path,))
        assert header.nbytes <= limit or len(header.tensors) == 1
