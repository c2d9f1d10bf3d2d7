"""The resampled position table against PyTorch's `interpolate`."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_aimv2.checkpoints.position_table import resample_table

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.parity


@pytest.mark.parametrize(
    ("old", "new"), [(16, 24), (16, 32), (24, 16), (32, 16), (16, 17), (2, 9), (1, 3), (9, 1)]
)
def test_a_table_is_resampled_as_torch_does(old: int, new: int) -> None:
    table = np.random.default_rng(old * 100 + new).normal(size=(old * old, 48)).astype(np.float32)
    grid = torch.from_numpy(table).reshape(1, old, old, -1).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(
        grid, (new, new), mode="bicubic", align_corners=False, antialias=False
    )
    expected = expected.permute(0, 2, 3, 1).reshape(new * new, -1).numpy()
    np.testing.assert_allclose(resample_table(mx.array(table), new), expected, atol=5e-6)
