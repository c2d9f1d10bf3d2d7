"""Fingerprints: what they consist of, and which vectors may stand in one folder."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_aimv2 import Embedder, LoadOptions, load
from mlx_aimv2.errors import InputError
from mlx_aimv2.events import ignore
from mlx_aimv2.models.lit import Aimv2Model
from mlx_aimv2.processing.decode import DecodeOptions
from mlx_aimv2.vectors.fingerprint import differences
from mlx_aimv2.vectors.shard_folder import ShardFolder

MADE_BY = {"name": "tiny", "checkpoint": "0123abcd", "pooling": "mean", "normalized": True, "revision": None}


def add_one(folder, fingerprint):
    shards = ShardFolder(folder, fingerprint)
    shards.add("a", np.zeros(3, np.float32))
    shards.close()


DIFFERENT = {  # the identity of a folder: each part by itself makes it another
    "checkpoint": "checkpoint: 0123abcd, now other",
    "adapter": "adapter: none, now other",
    "dtype": "dtype: float32, now other",
    "quantization": "quantization: none, now other",
    "pooling": "pooling: mean, now other",
    "preprocessing": "preprocessing: beef, now other",
    "normalized": "unit length: yes, now no",
}


@pytest.mark.parametrize("part", DIFFERENT)
def test_vectors_of_another_kind_are_not_mixed_in(tmp_path, part):
    made_by = {**MADE_BY, "dtype": "float32", "quantization": None, "preprocessing": "beef"}
    add_one(tmp_path, made_by)
    other = {**made_by, part: False if part == "normalized" else "other"}
    with pytest.raises(InputError) as caught:
        ShardFolder(tmp_path, other)
    assert str(caught.value) == (
        f"{tmp_path} holds vectors of another kind ({DIFFERENT[part]}): they cannot be mixed; name a new folder,"
        " or replace it with --force"
    )


def test_a_message_names_the_model_and_all_that_differs_and_nothing_else():
    other = {**MADE_BY, "name": "lit", "checkpoint": "ffff", "pooling": "max", "layout": "timm"}
    assert differences(MADE_BY, other) == "model: tiny, now lit; pooling: mean, now max"


@pytest.mark.parametrize("other", [{"name": "elsewhere"}, {"revision": "abc"}, {"layout": "timm"}])
def test_where_the_same_checkpoint_lay_does_not_matter(tmp_path, other):
    add_one(tmp_path, MADE_BY)
    assert len(ShardFolder(tmp_path, MADE_BY | other).index) == 1


def test_the_fingerprint_says_what_made_the_vectors(tiny_pair):
    fingerprint = Embedder(*load(tiny_pair)).fingerprint
    assert fingerprint.pop("checkpoint") and fingerprint.pop("preprocessing")
    assert fingerprint == {
        "name": str(tiny_pair),
        "revision": None,
        "layout": "apple",
        "dtype": "float32",
        "quantization": None,
        "pooling": "projected",
        "normalized": True,
    }


def test_the_fingerprint_is_the_same_for_the_same(tiny_pair):
    first, second = (Embedder(*load(tiny_pair)).fingerprint for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"pooling": "mean"}, "pooling"),
        ({"normalize": False}, "normalized"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"decode": DecodeOptions(decode="fast")}, "preprocessing"),
        ({"decode": DecodeOptions(background="black")}, "preprocessing"),
    ],
    ids=str,
)
def test_the_fingerprint_differs_where_the_vectors_may(tiny_pair, change, field):
    change = dict(change)
    arguments = {key: change.pop(key) for key in ("pooling", "normalize") if key in change}
    base = Embedder(*load(tiny_pair)).fingerprint
    other = Embedder(*load(tiny_pair, options=LoadOptions(**change)), **arguments).fingerprint
    assert [key for key in base if base[key] != other[key]] == [field]


def variants(tiny_pair, folder):
    """Embedders whose vectors may not be mixed with those of the first, each for another reason."""
    from mlx_aimv2 import convert
    from mlx_aimv2.adapters.attach import AdapterConfig, attach
    from mlx_aimv2.adapters.store import save_adapter

    yield "itself", Embedder(*load(tiny_pair))
    yield "dtype", Embedder(*load(tiny_pair, dtype="bfloat16"))
    for settings in ({"decode": "fast"}, {"background": "black"}):
        options = LoadOptions(decode=DecodeOptions(**settings))
        yield "preprocessing", Embedder(*load(tiny_pair, options=options))
    convert(tiny_pair, folder / "quantized", quantize=True, q_group_size=32)
    yield "quantization", Embedder(*load(folder / "quantized", on_event=ignore))
    for seed in (0, 1):
        mx.random.seed(seed)
        model, _ = load(tiny_pair, dtype="float32")
        attach(model.vision_model, AdapterConfig(rank=2))
        save_adapter(folder / f"adapter-{seed}", model.vision_model, AdapterConfig(rank=2), model.origin)
        yield "adapter", Embedder(*load(tiny_pair, adapter_path=folder / f"adapter-{seed}"))
    yield "pooling", Embedder(*load(tiny_pair), pooling="mean")
    yield "unit length", Embedder(*load(tiny_pair), normalize=False)


def test_a_folder_of_shards_takes_no_vectors_of_another_model_or_way(tiny_pair, tmp_path):
    from mlx_aimv2.vectors.shard_folder import ShardFolder

    every = list(variants(tiny_pair, tmp_path))
    prints = [embedder.fingerprint for _, embedder in every]
    assert all(first != second for k, first in enumerate(prints) for second in prints[:k])
    folder = ShardFolder(tmp_path / "v", prints[0])
    folder.add("a", np.zeros(3, np.float32))
    folder.close()
    ShardFolder(tmp_path / "v", dict(prints[0]))
    for (reason, _), fingerprint in zip(every[1:], prints[1:], strict=True):
        with pytest.raises(InputError, match=rf"holds vectors of another kind \(.*{reason}: .*, now "):
            ShardFolder(tmp_path / "v", fingerprint)


def test_the_fingerprint_differs_between_checkpoints_of_one_shape(tmp_path):
    from drawn_world.untrained import write_checkpoint

    prints = [Embedder(*load(write_checkpoint(tmp_path / f"{s}", seed=s))).fingerprint for s in (0, 1)]
    assert prints[0]["checkpoint"] != prints[1]["checkpoint"]


def test_the_batch_size_is_no_part_of_the_fingerprint(pair):
    assert Embedder(*pair, batch_size=1).fingerprint == Embedder(*pair, batch_size=7).fingerprint


def test_a_model_made_by_hand_has_a_fingerprint_too(pair):
    model, processor = pair
    by_hand = Aimv2Model(model.config)
    assert Embedder(by_hand, processor).fingerprint["name"] == "unnamed"
