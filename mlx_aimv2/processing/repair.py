"""Repair PNG and JPEG files: remove damaged metadata, add a missing end marker.

A repaired copy has the same coded pixels as its file.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

PNG, JPEG, END_OF_IMAGE = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xff\xd9"
# PNG chunks beside the critical ones that change pixels: transparency, significant bits, orientation and colours.
KEPT_CHUNKS = frozenset({b"tRNS", b"sBIT", b"eXIf", b"cICP", b"iCCP", b"gAMA", b"cHRM", b"sRGB"})
FIXED_SIZES = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4}
MOST_PROFILE = 1 << 20  # bytes of an unpacked profile; Pillow refuses an image with a larger one
FRAMES, RESTARTS = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA}), range(0xD0, 0xD8)
ZEROS = 16  # more zero bytes than coded pixels end with
SCAN, ADOBE, EXIF = 0xDA, 0xEE, 0xE1
APPLICATION, COMMENT = range(0xE0, 0xF0), 0xFE


def ends_in_zeros(stream: IO[bytes]) -> bool:
    """Whether a JPEG file ends in zeros instead of its end marker, as an unfinished download may."""
    if stream.seek(0, io.SEEK_END) < ZEROS:
        return False
    stream.seek(-ZEROS, io.SEEK_END)
    if any(stream.read()):
        return False
    stream.seek(0)
    return not stream.read().rstrip(b"\0").endswith(END_OF_IMAGE)


def without_metadata(data: bytes) -> bytes | None:
    """Copy a PNG or JPEG file without the chunks and segments that do not change pixels; None for other files.

    EXIF stays for its orientation. Damaged chunks are dropped.
    """
    if data.startswith(PNG):
        return PNG + b"".join(_png_chunks(data))
    if data.startswith(JPEG):
        return _lean_jpeg(data)
    return None


def _png_chunks(data: bytes) -> Iterator[bytes]:
    at = len(PNG)
    while at + 8 <= len(data):
        (length,), name = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        chunk = data[at : at + 12 + length]
        critical = name.isalpha() and name[:1].isupper()
        if critical or (name in KEPT_CHUNKS and _intact(name, chunk)):
            yield chunk
        at += 12 + length


def _intact(name: bytes, chunk: bytes) -> bool:
    content = chunk[8:-4]
    if len(chunk) < 12 or chunk[-4:] != struct.pack(">I", zlib.crc32(chunk[4:-4])):
        return False
    if name != b"iCCP":
        return len(content) == FIXED_SIZES.get(name, len(content))
    _, separator, packed = content.partition(b"\0")
    try:
        unpacker = zlib.decompressobj()
        unpacker.decompress(packed[1:], MOST_PROFILE)
    except zlib.error:
        return False
    return separator == b"\0" and packed[:1] == b"\0" and not unpacker.unconsumed_tail


def _lean_jpeg(data: bytes) -> bytes | None:
    kept = [JPEG]
    for marker, start, end in _segments(data):
        if marker == SCAN:
            return b"".join([*kept, data[start:]])
        content = data[start + 4 : end]
        of_pixels = marker not in APPLICATION and marker != COMMENT
        exif = marker == EXIF and content.startswith(b"Exif\0\0")
        color_transform = marker == ADOBE and content.startswith(b"Adobe") and len(content) >= 12
        if of_pixels or exif or color_transform:
            kept.append(data[start:end])
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The segments of a JPEG file as (marker, start, end); a scan's segment ends before its coded pixels."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
        marker = data[at + 1]
        if marker in (0x00, 0x01, 0xD8, 0xFF) or marker in RESTARTS:
            at += 1 if marker == 0xFF else 2
        elif marker == END_OF_IMAGE[1]:
            return
        else:
            end = at + 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
            if end > len(data):
                return
            yield marker, at, end
            at = end


@dataclass
class _Scans:
    """The coefficients that the scans of a JPEG file contain, and their missing low bits."""

    components: tuple[int, ...] = ()
    missing_bits: dict[tuple[int, int], int] = field(default_factory=dict)  # (component, coefficient) -> bits
    last: int = 0  # where the coded pixels of the last scan begin

    def add(self, header: bytes, end: int) -> None:
        count = header[0]
        first, last, bits = header[1 + 2 * count : 4 + 2 * count]
        for component in header[1 : 1 + 2 * count : 2]:
            self.missing_bits |= {(component, at): bits & 15 for at in range(first, last + 1)}
        self.last = end

    @property
    def complete(self) -> bool:
        return bool(self.components) and all(
            self.missing_bits.get((component, at)) == 0 for component in self.components for at in range(64)
        )


def ended_jpegs(data: bytes) -> tuple[bytes, list[bytes]] | None:
    """Copies of a JPEG file without an end marker, each with a different end.

    Returns:
        The file with an end marker, and copies with other coded pixels before the marker. If all of them decode to
        the same pixels, no pixel is missing: none depends on the added bytes. The list of copies is empty if whole
        scans are missing. None for a file that is not JPEG, or has no pixels at all.
    """
    if not data.startswith(JPEG):
        return None
    body = data.rstrip(b"\xff")  # half a marker
    if body.endswith(bytes(ZEROS)):  # allocated by an unfinished download
        body = body.rstrip(b"\0")
    scans = _Scans()
    for marker, start, end in _segments(body):
        content = body[start + 4 : end]
        if marker in FRAMES and len(content) >= 6:
            scans.components = tuple(content[6 : 6 + 3 * content[5] : 3])
        elif marker == SCAN and len(content) >= 4 + 2 * content[0]:
            scans.add(content, end)
    if not scans.last:
        return None
    ended = body + END_OF_IMAGE
    if not scans.complete:
        return ended, []
    coded = body[scans.last :]
    restarts = sum(coded.count(bytes((0xFF, marker))) for marker in RESTARTS)
    return ended, [body + _arbitrary_pixels(byte, restarts) + END_OF_IMAGE for byte in (0x55, 0xAA)]


def _arbitrary_pixels(byte: int, restarts: int) -> bytes:
    """Arbitrary coded pixels for this restart interval and the next ones."""
    pixels = bytes((byte,)) * 64
    markers = (bytes((0xFF, RESTARTS[(restarts + step) % 8])) for step in range(8))
    return pixels + b"".join(marker + pixels for marker in markers)
