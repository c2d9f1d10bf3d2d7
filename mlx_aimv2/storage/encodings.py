"""Encodings of text files: UTF-8, or what a byte order mark (BOM) says."""

from __future__ import annotations

import codecs

BOMS = (  # the longer ones first: that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(start: bytes) -> str:
    """The codec of a text file that begins with these bytes; it removes the byte order mark."""
    return next((name for bom, name in BOMS if start.startswith(bom)), "utf-8")
