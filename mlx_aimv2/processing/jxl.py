"""The size of a JPEG XL image from its header: the plugin of Pillow decodes the pixels to open a file."""

from __future__ import annotations

import io
from typing import IO

from ..errors import BrokenImageError

CODESTREAM, CONTAINER = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}  # width to height
MOST_BYTES = 16  # of a size
LOOK = len(CONTAINER)  # first bytes of a file that show whether it is one


def is_jxl(head: bytes) -> bool:
    """Whether a file begins with the signature of JPEG XL."""
    return head.startswith((CODESTREAM, CONTAINER))


def jxl_size(stream: IO[bytes]) -> tuple[int, int]:
    """(width, height) in pixels as stored, before the orientation (ISO/IEC 18181-1, SizeHeader).

    Raises:
        BrokenImageError: The file is cut off before its size.
    """
    stream.seek(0)
    start = stream.read(MOST_BYTES)
    if start.startswith(CONTAINER):
        start = _codestream(stream)
    if len(start) < MOST_BYTES or not start.startswith(CODESTREAM):
        raise BrokenImageError("cut off or damaged (a JPEG XL file without a size)")
    bits = _Bits(int.from_bytes(start[2:], "little"))
    is_small = bits.read(1)
    height = _edge(bits, is_small)
    ratio = bits.read(3)
    if ratio:
        across, down = RATIOS[ratio]
        return height * across // down, height
    return _edge(bits, is_small), height


def _edge(bits: _Bits, is_small: int) -> int:
    if is_small:
        return 8 * (bits.read(5) + 1)
    return bits.read((9, 13, 18, 30)[bits.read(2)]) + 1


class _Bits:
    """Reads unsigned numbers, the lowest bit first."""

    def __init__(self, rest: int) -> None:
        self.rest = rest

    def read(self, count: int) -> int:
        value = self.rest & ((1 << count) - 1)
        self.rest >>= count
        return value


def _codestream(stream: IO[bytes]) -> bytes:
    """The first bytes of the coded image in a container of boxes."""
    stream.seek(0)
    while len(head := stream.read(8)) == 8:
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        used = 8
        if length == 1:  # a box of 64-bit length
            length, used = int.from_bytes(stream.read(8), "big"), 16
        if name == b"jxlc":
            return stream.read(MOST_BYTES)
        if name == b"jxlp":
            stream.read(4)  # its place among the parts
            return stream.read(MOST_BYTES)
        if length < used:  # to the end of the file, or damaged
            break
        stream.seek(length - used, io.SEEK_CUR)
    return b""
