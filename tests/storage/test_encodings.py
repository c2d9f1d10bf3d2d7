"""Byte order marks."""

from __future__ import annotations

import codecs
import os

from hypothesis import given
from hypothesis import strategies as st

from mlx_aimv2.storage.text_files import decode_text, file_names

UTF16 = [(codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")]


MARKED = [*UTF16, (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be")]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff")))
def test_every_encoding_gives_the_same_text(text: str) -> None:
    encoded = text.encode()
    assert decode_text(encoded, "x") == decode_text(codecs.BOM_UTF8 + encoded, "x") == text
    for mark, encoding in MARKED:
        assert decode_text(mark + text.encode(encoding), "x") == text


def test_a_name_that_begins_like_utf_16_is_kept() -> None:
    assert [os.fsencode(name) for name in file_names(b"\xff\xfea.jpg\nb.jpg")] == [b"\xff\xfea.jpg", b"b.jpg"]
