"""How a difference between a checkpoint and its model reads; that it is found is tested by loading."""

from mlx_aimv2.checkpoints.matching import fold_names


def test_names_are_folded_by_their_first_number():
    layers = [f"layers.{number}.norm" for number in (2, 0, 1)]
    assert fold_names([*layers, "a.7.b", "head", "{}.1.x"]) == "layers.{0-2}.norm, a.7.b, head, {}.1.x"
    assert fold_names(["a.0.b", f"a.{10**18}.b"]) == f"a.{{0,{10**18}}}.b"
    assert fold_names([f"a.{2 * number}.b" for number in range(30)]).endswith(",36,38,…}.b")
