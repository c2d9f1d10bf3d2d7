"""From the bytes of a text file to text: UTF-8, or what a byte order mark (BOM) says."""

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
    """The codec of a text file that begins with these bytes; it takes the byte order mark away."""
    return next((name for bom, name in BOMS if start.startswith(bom)), "utf-8")


def decode_text(data: bytes) -> str:
    """The text of a whole file, without its byte order mark.

    Raises:
        UnicodeDecodeError: it is not text in the encoding that its first bytes say.
    """
    return data.decode(encoding_of(data))


def decode_start(start: bytes) -> str:
    """The first bytes of any file as text, with a replacement character for what is none."""
    return start.decode(encoding_of(start), errors="replace")
