"""What only a GPU does: float16 by default, MLX's fused kernels, compiled activations. Skipped without one."""

import numpy as np
import pytest

from mlx_aimv2 import Embedder, ZeroShotClassifier, load
from mlx_aimv2.models.backend import compute_dtype, gpu_available

import mlx.core as mx  # isort: skip

pytestmark = pytest.mark.skipif(not gpu_available(), reason="no GPU")


@pytest.fixture(autouse=True)
def on_gpu():
    mx.set_default_device(mx.gpu)
    yield
    mx.set_default_device(mx.cpu)


def noise():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (h, w, 3), dtype=np.uint8) for h, w in ((168, 168), (210, 140), (168, 168))]


def test_half_precision_is_the_default():
    assert compute_dtype(None) == mx.float16


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["tiny_pair", "tiny_vision", "tiny_native"])
def test_a_gpu_gives_what_a_cpu_gives(request, kind, dtype):
    folder = request.getfixturevalue(kind)
    tolerance = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 6e-2}[dtype]
    found = Embedder(*load(folder, dtype=dtype)).images(noise())
    mx.set_default_device(mx.cpu)
    expected = Embedder(*load(folder, dtype="float32")).images(noise())
    np.testing.assert_allclose(found, expected, atol=tolerance)


def test_texts_and_labels(tiny_pair):
    classifier = ZeroShotClassifier(*load(tiny_pair), labels=["a dog", "a cat"])
    found = dict(classifier(noise()[0])[0])
    mx.set_default_device(mx.cpu)
    expected = dict(ZeroShotClassifier(*load(tiny_pair), labels=["a dog", "a cat"])(noise()[0])[0])
    assert found == pytest.approx(expected, abs=2e-2)
