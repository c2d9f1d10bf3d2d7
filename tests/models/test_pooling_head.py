import mlx.core as mx
import numpy as np
import pytest

from mlx_aimv2 import Aimv2VisionConfig
from mlx_aimv2.models.pooling_head import AttentionPoolingHead

CONFIG = Aimv2VisionConfig(hidden_size=24, num_attention_heads=3)


@pytest.fixture
def head():
    head = AttentionPoolingHead(CONFIG)
    head.cls_token = mx.random.normal((1, 1, 24), key=mx.random.key(3))
    head.output_proj.bias = mx.arange(24) / 10
    head.eval()
    return head


def test_head_equals_the_formula_in_numpy(head):
    tokens = np.array(mx.random.normal((2, 5, 24), key=mx.random.key(4)))
    k, v = (tokens @ np.array(p.weight).T for p in (head.k_proj, head.v_proj))
    pooled = np.zeros((2, 24))
    for b in range(2):
        for start in (0, 8, 16):
            part = slice(start, start + 8)
            scores = k[b, :, part] @ np.array(head.cls_token)[0, 0, part] / np.sqrt(8)
            weights = np.exp(scores) / np.exp(scores).sum()
            pooled[b, part] = weights @ v[b, :, part]
    expected = pooled @ np.array(head.output_proj.weight).T + np.array(head.output_proj.bias)
    np.testing.assert_allclose(np.array(head(mx.array(tokens))), expected, rtol=1e-4, atol=1e-5)


def test_order_of_the_tokens_does_not_matter(head):
    tokens = mx.random.normal((1, 6, 24), key=mx.random.key(5))
    np.testing.assert_allclose(np.array(head(tokens)), np.array(head(tokens[:, ::-1])), atol=1e-5)


def test_equal_tokens_pool_to_that_token(head):
    token = mx.random.normal((1, 1, 24), key=mx.random.key(6))
    many = head(mx.broadcast_to(token, (1, 9, 24)))
    np.testing.assert_allclose(np.array(many), np.array(head(token)), atol=1e-5)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16], ids=str)
def test_head_keeps_the_dtype(head, dtype):
    head.set_dtype(dtype)
    assert head(mx.ones((1, 2, 24), dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("bias", [True, False])
def test_only_the_output_always_has_a_bias(bias):
    head = AttentionPoolingHead(Aimv2VisionConfig(hidden_size=8, num_attention_heads=1, qkv_bias=bias))
    assert [("bias" in p) for p in (head.k_proj, head.v_proj, head.output_proj)] == [bias, bias, True]
