"""Rounding that makes up for its errors: the format is MLX's, and outputs are closer than by plain rounding."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_aimv2.quantization.gptq import Inputs, pack, quantize
from mlx_aimv2.quantization.scheme import VALID, Scheme

SCHEMES = [Scheme(group, bits) for group in VALID["affine"][0] for bits in VALID["affine"][1]]


def related(rng, count, width):
    """Inputs (count, width) that hang together, as those of a network do."""
    return (
        rng.normal(size=(count, 8)) @ rng.normal(size=(8, width)) + 0.3 * rng.normal(size=(count, width))
    ).astype(np.float32)


def error(x, weight, packed, scheme):
    plain = np.array(mx.dequantize(*packed, **scheme.arguments()).astype(mx.float32))
    return np.linalg.norm(x @ (plain - weight).T) / np.linalg.norm(x @ weight.T)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32], ids=str)
def test_outputs_are_closer_than_by_plain_rounding(scheme, dtype):
    rng = np.random.default_rng(scheme.bits)
    x, weight = related(rng, 600, 256), rng.normal(size=(48, 256)).astype(np.float32)
    plain = mx.quantize(mx.array(weight).astype(dtype), **scheme.arguments())
    packed = quantize(weight, Inputs.of(x.T @ x), scheme, dtype)
    assert [(p.shape, p.dtype) for p in packed] == [(p.shape, p.dtype) for p in plain]
    if scheme.bits <= 4:
        assert error(x, weight, packed, scheme) < 0.8 * error(x, weight, plain, scheme)
    elif dtype != mx.bfloat16:  # whose scales alone are wrong by more than so many bits are
        assert error(x, weight, packed, scheme) < error(x, weight, plain, scheme)


@given(
    bits=st.sampled_from(VALID["affine"][1]),
    rows=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_codes_are_packed_as_mlx_unpacks_them(bits, rows, seed):
    codes = np.random.default_rng(seed).integers(0, 2**bits, size=(rows, 64), dtype=np.uint8)
    ones, zeros = mx.ones((rows, 1)), mx.zeros((rows, 1))
    plain = mx.dequantize(pack(codes, bits), ones, zeros, group_size=64, bits=bits)
    np.testing.assert_array_equal(np.array(plain), codes)


def test_the_factor_is_that_of_the_inverse():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 64)) * np.linspace(0.1, 3, 64)
    inputs = Inputs.of(x.T @ x)
    gram = (x.T @ x)[np.ix_(inputs.order, inputs.order)]
    gram += 0.01 * np.trace(gram) / 64 * np.eye(64)
    np.testing.assert_allclose(inputs.upper.T @ inputs.upper @ gram, np.eye(64), atol=2e-3)
    assert np.array_equal(np.triu(inputs.upper), inputs.upper)
    assert (np.diff(inputs.importance[inputs.order]) <= 0).all()


@pytest.mark.parametrize("kind", ["constant", "zero", "huge", "outlier"])
def test_odd_weights_stay_finite(kind):
    rng = np.random.default_rng(2)
    weight = {
        "constant": np.full((4, 64), 0.25),
        "zero": np.zeros((4, 64)),
        "huge": rng.normal(size=(4, 64)) * 1e4,
        "outlier": np.where(np.arange(64) == 7, 100.0, rng.normal(size=(4, 64))),
    }[kind].astype(np.float32)
    x, scheme = related(rng, 200, 64), Scheme(64, 4)
    packed = quantize(weight, Inputs.of(x.T @ x), scheme, mx.float16)
    plain = np.array(mx.dequantize(*packed, **scheme.arguments()))
    assert np.isfinite(plain).all()
    if kind in ("constant", "zero"):
        np.testing.assert_array_equal(plain, weight)


def test_inputs_that_are_never_there_are_allowed():
    rng = np.random.default_rng(3)
    x = related(rng, 200, 64)
    x[:, 10:20] = 0
    for gram in (x.T @ x, np.zeros((64, 64), np.float32)):
        packed = quantize(
            rng.normal(size=(8, 64)).astype(np.float32), Inputs.of(gram), Scheme(32, 3), mx.float32
        )
        assert all(np.isfinite(np.array(part)).all() for part in packed)


def squared_error(group, part, importance, bits):
    """What a group of weights is off by in a narrower range, each weight by how large its input is."""
    low, high = group.min() * part, group.max() * part
    step = (high - low) / (2**bits - 1)
    codes = np.clip(np.rint((group - low) / step), 0, 2**bits - 1)
    return (importance * (codes * step + low - group) ** 2).sum(), step


@pytest.mark.parametrize("silent", [True, False])
def test_ranges_are_chosen_by_what_the_weights_multiply(silent):
    """An outlier that multiplies nothing may be cut off; one that multiplies as much as the others may not."""
    rng, scheme = np.random.default_rng(5), Scheme(64, 4)
    weight = rng.uniform(-0.1, 0.1, (1, 64)).astype(np.float32)
    weight[0, :2] = (-0.2, 0.2)
    energy = np.ones(64, np.float32)
    energy[:2] = 0 if silent else 1
    _, scales, _ = quantize(weight, Inputs.of(np.diag(energy)), scheme, mx.float32)
    tried = [squared_error(weight[0], 1 - 0.05 * k, energy, 4) for k in range(11)]
    assert scales.item() == pytest.approx(min(tried)[1], rel=1e-5)
    assert bool(scales.item() < 0.6 * tried[0][1]) == silent
