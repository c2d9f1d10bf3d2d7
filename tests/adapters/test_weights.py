"""Trained weights that are no adapter: their hash."""

import mlx.core as mx

from mlx_aimv2.adapters.store import write_tensors
from mlx_aimv2.adapters.weights import TRAINED, TRUNK, weights_hash


def test_the_hash_covers_the_weights_and_the_adapter_beside_them(tmp_path):
    for name, tensors in {TRAINED: {"logit_scale": mx.array(1.0)}, TRUNK: {"x": mx.zeros(3)}}.items():
        write_tensors(tmp_path / name, tensors, {"format": "mlx"})
    hashes = [
        weights_hash(tmp_path, name, adapter) for name in (TRAINED, TRUNK) for adapter in (None, "a", "b")
    ]
    assert len(set(hashes)) == 6
    assert hashes[0] == weights_hash(tmp_path, TRAINED)
