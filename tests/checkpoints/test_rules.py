import mlx.core as mx
import pytest

from mlx_aimv2.checkpoints.rules import (
    KERNEL,
    TABLE,
    from_canonical,
    prefixed,
    rule,
    to_canonical,
)

RULES = [
    rule("qkv.weight", "q.weight", "k.weight", "v.weight"),
    rule("blocks.{i}.fc.weight", "layers.{i}.gate.weight"),
    rule("conv", "kernel", transform=KERNEL),
    rule("pos", "table", transform=TABLE),
]


def test_a_fused_tensor_is_split_by_rows():
    canonical, unknown = to_canonical({"qkv.weight": mx.arange(12).reshape(6, 2)}, RULES)
    assert {name: x.tolist() for name, x in canonical.items()} == {
        "q.weight": [[0, 1], [2, 3]],
        "k.weight": [[4, 5], [6, 7]],
        "v.weight": [[8, 9], [10, 11]],
    }
    assert unknown == []


def test_the_number_of_a_layer_is_carried_over():
    canonical, _ = to_canonical({f"blocks.{i}.fc.weight": mx.array(i) for i in (0, 7, 23)}, RULES)
    assert {name: x.item() for name, x in canonical.items()} == {
        "layers.0.gate.weight": 0,
        "layers.7.gate.weight": 7,
        "layers.23.gate.weight": 23,
    }


def test_the_number_of_a_layer_may_follow_an_underscore():
    rules = [rule("trunk.layers_{i}.norm_1.scale", "layers.{i}.rms_norm1.weight")]
    layout = {f"trunk.layers_{i}.norm_1.scale": mx.array(i) for i in (0, 23)}
    canonical, unknown = to_canonical(layout, rules)
    assert unknown == [] and list(canonical) == [f"layers.{i}.rms_norm1.weight" for i in (0, 23)]
    assert from_canonical(canonical, rules)[0].keys() == layout.keys()
    assert to_canonical({"trunk.layers.0.norm_1.scale": mx.array(0)}, rules)[0] == {}


@pytest.mark.parametrize("number", ["01", "-1", "x", "", "1234567"])
def test_what_is_no_number_of_a_layer_is_unknown(number):
    name = f"blocks.{number}.fc.weight"
    assert to_canonical({name: mx.array(0)}, RULES) == ({}, [name])


def test_a_kernel_has_its_channels_moved():
    kernel = mx.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    canonical, _ = to_canonical({"conv": kernel}, RULES)
    assert canonical["kernel"].shape == (2, 4, 5, 3)
    assert canonical["kernel"][1, 3, 4, 2].item() == kernel[1, 2, 3, 4].item()


def test_a_table_loses_its_batch():
    assert to_canonical({"pos": mx.zeros((1, 4, 2))}, RULES)[0]["table"].shape == (4, 2)


def test_the_inverse_gives_back_every_tensor():
    layout = {
        "qkv.weight": mx.arange(12).reshape(6, 2),
        "blocks.3.fc.weight": mx.arange(3),
        "conv": mx.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4),
        "pos": mx.arange(8).reshape(1, 4, 2),
    }
    again, unknown = from_canonical(to_canonical(layout, RULES)[0], RULES)
    assert unknown == [] and again.keys() == layout.keys()
    assert all(mx.array_equal(again[name], layout[name]) for name in layout)


def test_unknown_names_are_given_back_in_both_directions():
    tensors = {"else": mx.array(0)}
    assert to_canonical(tensors, RULES) == ({}, ["else"])
    assert from_canonical(tensors, RULES) == ({}, ["else"])


def test_an_incomplete_group_cannot_be_fused():
    tensors = {name: mx.zeros((2, 2)) for name in ("q.weight", "v.weight")}
    assert from_canonical(tensors, RULES) == ({}, ["q.weight", "v.weight"])


@pytest.mark.parametrize("tensor", [mx.zeros((7, 2)), mx.array(0.0)], ids=["seven-rows", "scalar"])
def test_a_group_that_cannot_be_split_keeps_its_shape_for_the_comparison(tensor):
    canonical, _ = to_canonical({"qkv.weight": tensor}, RULES)
    assert [x.shape for x in canonical.values()] == [tensor.shape] * 3


@pytest.mark.parametrize(("name", "target"), [("conv", "kernel"), ("pos", "table")])
def test_other_ranks_pass_through_for_the_comparison(name, target):
    assert to_canonical({name: mx.zeros((5, 5))}, RULES)[0][target].shape == (5, 5)


def test_prefixed_rules_keep_everything_else():
    kernel = next(r for r in prefixed(RULES, "a.", "b.") if r.source == "a.conv")
    assert (kernel.targets, kernel.forward, kernel.inverse) == (("b.kernel",), *KERNEL)
