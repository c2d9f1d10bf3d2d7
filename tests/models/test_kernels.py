import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_aimv2.models import kernels


def normal(*shape, seed=0, scale=1.0):
    return scale * mx.random.normal(shape, key=mx.random.key(seed))


def relative_error(x, expected):
    return np.abs(np.array(x, np.float64) - expected).max() / np.abs(expected).max()


@pytest.fixture(params=["fast", "plain"])
def path(request, monkeypatch):
    """With the compiled polynomial, where there is a compiler, and without it."""
    monkeypatch.setattr(kernels, "POLYNOMIAL_FROM", 0)
    if request.param == "plain":
        monkeypatch.setattr(kernels, "cpu_compiles", lambda: False)
    elif not kernels.cpu_compiles():
        pytest.skip("no C++ compiler, or no CPU device")
    return request.param


def silu_times(gate, up):
    gate, up = np.array(gate, np.float64), np.array(up, np.float64)
    with np.errstate(over="ignore"):
        return gate / (1 + np.exp(-gate)) * up


def power_of_two(t):
    return kernels._exp2(t, kernels._bits(t).view(mx.float32))


@pytest.mark.parametrize("step", [0, 1e-7, -1e-7])
def test_powers_of_two_are_good_to_a_few_units_in_the_last_place(step):
    halves = np.arange(-64, 64, dtype=np.float32) / 2  # where the rounded number changes
    t = np.concatenate([np.linspace(-64, 64, 20001, dtype=np.float32), halves * np.float32(1 + step)])
    expected = np.exp2(t.astype(np.float64))
    error = np.abs(np.array(power_of_two(mx.array(t)), np.float64) - expected) / expected
    assert error.max() < 3e-7


@pytest.mark.parametrize("value", [-1e9, -1e7, -1e4, -65.0, 65.0, 1e4, 1e7, 1e9])
def test_powers_of_two_are_clamped(value):
    result = power_of_two(mx.array([value])).item()
    assert 0 < result < 2.0**-63 if value < 0 else result > 2.0**63


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_powers_of_what_is_not_finite_are_nan(value):
    assert np.isnan(power_of_two(mx.array([value])).item())


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_gated_silu_equals_the_formula(path, scale):
    gate, up = normal(3, 7, 33, scale=scale), normal(3, 7, 33, seed=1)
    assert relative_error(kernels.gated("silu", gate, up), silu_times(gate, up)) < 1e-6


def test_gated_silu_of_extreme_values(path):
    gate, up = mx.array([-1e8, -1e4, -100.0, 0.0, 100.0, 1e4]), mx.array([1.0, 1e4, -1e4, 1.0, -1e4, 1e4])
    np.testing.assert_allclose(np.array(kernels.gated("silu", gate, up)), [0, 0, 0, 0, -1e6, 1e8], atol=1e-10)


@pytest.mark.parametrize("which", [0, 1])
def test_gated_silu_keeps_nan(path, which):
    inputs = [mx.array([1.0, 2.0]), mx.array([3.0, 4.0])]
    inputs[which] = mx.array([1.0, float("nan")])
    assert np.isnan(np.array(kernels.gated("silu", *inputs))).tolist() == [False, True]


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("gelu", nn.gelu),
        ("gelu_pytorch_tanh", nn.gelu_approx),
        ("quick_gelu", lambda x: x * mx.sigmoid(1.702 * x)),
        ("relu", nn.relu),
    ],
)
def test_other_activations(activation, function):
    gate, up = normal(4, 9), normal(4, 9, seed=1)
    expected = np.array(function(gate) * up)
    np.testing.assert_allclose(np.array(kernels.gated(activation, gate, up)), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_results_have_the_dtype_of_the_inputs(dtype, training):
    x = normal(1, 2, 3, 8).astype(dtype)
    assert kernels.gated("silu", x, x, training).dtype == dtype
    assert kernels.attention(x, x, x, training=training).dtype == dtype


def attention_in_numpy(q, k, v, mask=None):
    q, k, v = (np.array(x, np.float64) for x in (q, k, v))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    if mask is not None:
        scores = np.where(np.array(mask), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights @ v / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("shapes", [((2, 3, 17, 8), (2, 3, 17, 8)), ((1, 2, 1, 16), (1, 2, 40, 16))])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_attention_equals_the_formula(path, shapes, scale):
    q, k, v = normal(*shapes[0], scale=scale), normal(*shapes[1], seed=1), normal(*shapes[1], seed=2)
    assert relative_error(kernels.attention(q, k, v), attention_in_numpy(q, k, v)) < 2e-6


def test_both_paths_of_attention_agree(path):
    q, k, v = (normal(2, 2, 300, 8, seed=seed) for seed in range(3))
    own = mx.fast.scaled_dot_product_attention(q, k, v, scale=8**-0.5)
    assert relative_error(kernels.attention(q, k, v), np.array(own, np.float64)) < 1e-6


@pytest.mark.parametrize("rows", [1, 7, 299])
def test_attention_in_blocks_is_the_same(path, rows, monkeypatch):
    q, k, v = (normal(2, 2, 300, 8, seed=seed) for seed in range(3))
    monkeypatch.setattr(kernels, "CPU_SCORES", rows * 2 * 2 * 300)
    assert relative_error(kernels.attention(q, k, v), attention_in_numpy(q, k, v)) < 2e-6


def test_attention_with_extreme_scores_is_the_value_of_the_largest(path):
    q, k, v = mx.full((1, 1, 2, 1), 100.0), mx.array([[[[100.0], [-100.0], [0.0]]]]), normal(1, 1, 3, 1)
    mixed = kernels.attention(q, k, v)  # scores of 1e4, -1e4 and 0
    np.testing.assert_allclose(np.array(mixed).flatten(), [v[0, 0, 0].item()] * 2, rtol=1e-6)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_attention_keeps_nan(path, which):
    inputs = [normal(1, 1, 3, 4, seed=seed) for seed in range(3)]
    inputs[which][0, 0, 1, 0] = float("nan")
    assert np.isnan(np.array(kernels.attention(*inputs))).any()


@pytest.mark.parametrize("training", [True, False])
def test_attention_keeps_to_the_mask(path, training):
    q, k, v = (normal(1, 2, 5, 8, seed=seed) for seed in range(3))
    mask = mx.arange(5)[:, None] >= mx.arange(5)
    mixed = kernels.attention(q, k, v, mask, training=training)
    assert relative_error(mixed, attention_in_numpy(q, k, v, mask)) < 1e-6


def test_training_gives_the_same_attention_and_gate():
    q, k, v = (normal(1, 2, 9, 8, seed=seed) for seed in range(3))
    trained = kernels.attention(q, k, v, training=True)
    assert relative_error(kernels.attention(q, k, v), np.array(trained, np.float64)) < 1e-6
    trained = np.array(kernels.gated("silu", q, k, training=True), np.float64)
    assert relative_error(kernels.gated("silu", q, k), trained) < 1e-6


def test_the_gate_has_its_gradient_in_training(path):
    gate, up, step = normal(5), normal(5, seed=1), 1e-3

    def total(x):
        return kernels.gated("silu", x, up, training=True).sum()

    slope = mx.grad(total)(gate)
    expected = (silu_times(gate + step, up) - silu_times(gate - step, up)) / (2 * step)
    np.testing.assert_allclose(np.array(slope), expected, rtol=1e-2, atol=1e-3)


def test_attention_has_its_gradient_in_training(path):
    q, k, v = (normal(1, 1, 3, 4, seed=seed) for seed in range(3))

    def total(q, k, v):
        return (kernels.attention(q, k, v, training=True) ** 2).sum()

    gradients = mx.grad(total, argnums=(0, 1, 2))(q, k, v)
    for which in range(3):
        step = np.zeros((1, 1, 3, 4))
        step[0, 0, 1, 2] = 1e-4
        ends = []
        for sign in (1, -1):
            inputs = [np.array(x, np.float64) for x in (q, k, v)]
            inputs[which] = inputs[which] + sign * step
            ends.append((attention_in_numpy(*inputs) ** 2).sum())
        assert gradients[which][0, 0, 1, 2].item() == pytest.approx(
            (ends[0] - ends[1]) / 2e-4, rel=1e-3, abs=1e-4
        )


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_gradients_are_those_of_the_plain_operations(path, scale):
    gate, up, d = (normal(3, 7, 33, seed=seed, scale=scale) for seed in range(3))
    own = mx.vjp(lambda gate, up: nn.silu(gate) * up, [gate, up], [d])[1]
    found = mx.vjp(lambda gate, up: kernels.gated("silu", gate, up, training=True), [gate, up], [d])[1]
    q, k, v, d = (normal(2, 2, 9, 8, seed=seed, scale=scale**0.5) for seed in range(4))
    own += mx.vjp(lambda *x: mx.fast.scaled_dot_product_attention(*x, scale=8**-0.5), [q, k, v], [d])[1]
    found += mx.vjp(lambda *x: kernels.attention(*x, training=True), [q, k, v], [d])[1]
    for ours, expected in zip(found, own, strict=True):
        assert relative_error(ours, np.array(expected, np.float64)) < 2e-6


def test_a_whole_model_has_gradients_in_training(variants):
    from mlx_aimv2 import Aimv2VisionModel

    model = Aimv2VisionModel(variants["head"])
    model.train()
    loss = nn.value_and_grad(model, lambda m, x: m(x).pooler_output.square().sum())
    value, gradients = loss(model, normal(1, 56, 56, 3))
    assert value.item() > 0
    assert mx.abs(gradients["embeddings"]["patch_embed"]["weight"]).sum().item() > 0


def test_attention_weights_are_float32_and_sum_to_one():
    q, k = normal(1, 2, 4, 8).astype(mx.float16), normal(1, 2, 4, 8, seed=1).astype(mx.float16)
    weights = kernels.attention_weights(q, k)
    assert weights.dtype == mx.float32
    np.testing.assert_allclose(np.array(weights.sum(-1)), 1, rtol=1e-6)


def test_without_a_compiler_the_plain_operations_are_used(monkeypatch):
    monkeypatch.setattr(kernels.shutil, "which", lambda name: None)
    assert kernels.cpu_compiles.__wrapped__() is False


def test_with_a_compiler_that_does_not_work_the_plain_operations_are_used(monkeypatch):
    def fail(*arrays):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(kernels.shutil, "which", lambda name: "/usr/bin/g++")
    disabled = []
    monkeypatch.setattr(kernels, "_swiglu_polynomial", fail)
    monkeypatch.setattr(
        kernels.mx, "disable_compile", lambda: disabled.append(True)
    )  # it holds for all tests
    assert kernels.cpu_compiles.__wrapped__() is False and disabled == [True]
