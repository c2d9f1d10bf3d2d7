"""The classifier of a run: what of it is trained."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import load
from mlx_aimv2.finetuning.prepared import make_stepper
from mlx_aimv2.finetuning.run import finetune, prepare
from mlx_aimv2.training.batches import Batches


@pytest.mark.parametrize("method", ["dora", "full"])
def test_what_has_one_dimension_does_not_decay(options, method):
    """Norms, biases and the lengths of DoRA: at a rate and a decay that would halve them in a step."""
    given = options(
        fine_tune_type=method, learning_rate=1e-6, head_lr=1e-6, weight_decay=5e5, iters=1, warmup=0.0
    )
    run = prepare(given)
    before = {name: np.array(x) for name, x in tree_flatten(run.model.trainable_parameters())}
    run.model.train()
    batches = list(Batches(run.dataset, run.processor.image_processor).epoch())
    make_stepper(run.model, given, multi_label=False).step(batches, 1e-6)
    after = dict(tree_flatten(run.model.trainable_parameters()))
    assert {x.ndim for x in before.values()} >= {1, 2}
    for name, x in before.items():
        shrunk = np.linalg.norm(np.array(after[name])) < 0.6 * np.linalg.norm(x)
        assert shrunk == (x.ndim > 1 and bool(x.any())), name


def test_only_the_last_layers_are_trained(options, tiny_vision):
    before = dict(tree_flatten(load(tiny_vision, dtype="float32")[0].parameters()))
    finished = finetune(options(fine_tune_type="full", num_layers=1, epochs=1))
    after = mx.load(str(finished.folder / "trunk.safetensors"))
    changed = {name for name, x in after.items() if not mx.array_equal(x, before[name]).item()}
    assert changed and all(name.startswith(("encoder.layers.1.", "rms_norm")) for name in changed)
