"""Options for decoding: wrong values, and the limit of megapixels."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.encoded_images import png
from PIL import Image

from mlx_aimv2.errors import (
    ImageTooLargeError,
    InputError,
)
from mlx_aimv2.processing.decode import DecodeOptions, decode_image


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decode": "quick"}, "decode is 'quick', but has to be 'exact', 'fast' or 'native'"),
        ({"background": "whit"}, "background is 'whit', but has to be a colour name"),
        ({"background": "#ffffff80"}, "background is '#ffffff80'"),
        ({"background": "rgb(300,0,0)"}, "background is"),
        ({"background": None}, "background is None"),
        ({"max_megapixels": 0}, "max_megapixels is 0, but has to be a number greater than 0"),
        ({"max_megapixels": float("nan")}, "max_megapixels is nan"),
        ({"max_megapixels": float("inf")}, "max_megapixels is inf"),
        ({"max_megapixels": "9"}, "max_megapixels is '9'"),
        ({"max_megapixels": True}, "max_megapixels is True"),
    ],
)
def test_options_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        DecodeOptions(**fields)
    assert message in str(caught.value)


def test_large_images_are_refused_before_decoding() -> None:
    message = r"1000x500 is 0\.5 megapixels, more than the 0\.4 allowed: raise max_megapixels"
    for source in (png(1000, 500), Image.new("L", (1000, 500))):
        with pytest.raises(ImageTooLargeError, match=message):
            decode_image(source, DecodeOptions(max_megapixels=0.4))
    assert decode_image(Image.new("L", (1000, 500)), DecodeOptions(max_megapixels=0.5)).size == (1000, 500)
    with pytest.raises(ImageTooLargeError, match=r"100000x100000 is 10000\.0 megapixels"):
        decode_image(png(100_000, 100_000))
