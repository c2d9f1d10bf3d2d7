"""The number of images of the demo."""

import pytest

from mlx_aimv2.demo.options import TourOptions
from mlx_aimv2.errors import InputError


@pytest.mark.parametrize("count", [3, 13])
def test_too_few_or_too_many_images(count):
    with pytest.raises(InputError, match=f"the count is {count}, but has to be from 4 to 12 images"):
        TourOptions(count=count)
