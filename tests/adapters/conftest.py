"""What the tests of adapters share."""

import mlx.core as mx
import pytest


@pytest.fixture
def pixels():
    """Two random images of 56 x 56."""
    return mx.random.normal((2, 56, 56, 3), key=mx.random.key(3))
