"""The packets of a video: their times, keyframes and order, read without decoding; and which of them to decode."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BrokenImageError, ImageError, ImageTooLargeError, MissingExtraError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet as AnyPacket
    from av.video.stream import VideoStream

    Packet = AnyPacket[VideoStream]

FORMATS = "asf,avi,dv,flv,gif,h264,hevc,ivf,m4v,matroska,mov,mp4,mpeg,mpegts,mpegvideo,mxf,ogg,webm"
# not among them: playlists and lists of files, which would open other files and addresses
MOST_PIXELS = 10**8  # of a frame; a decoder holds a dozen of them
TOLERANCE_S = 0.5  # between the end of the last frame and the end that the file announces
SHOWN_VP8 = 0x10  # a bit in the first byte of a VP8 frame


@contextmanager
def open_video(path: str) -> Iterator[InputContainer]:
    """Open a video.

    Raises:
        BrokenImageError: the file is not a video, or damaged.
        OSError: it cannot be read.
        MissingExtraError: the package av is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("Reading videos", "av", "video") from error
    with Path(path).open("rb"):
        pass  # else the system's reason
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        container = av.open(f"file:{path}", "r", options=options, metadata_errors="replace")
    except failures() as error:
        raise BrokenImageError("not a video, or damaged") from error
    with container:
        yield container


def failures() -> tuple[type[Exception], ...]:
    """What PyAV raises for damaged files."""
    from av.error import FFmpegError

    return FFmpegError, IndexError  # the latter for streams that turn up late


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or "its streams contradict each other"


def video_stream(container: InputContainer) -> VideoStream | None:
    """The first video stream; the cover of an album is none."""
    from av.stream import Disposition

    streams = container.streams.video
    return next((s for s in streams if not s.disposition & Disposition.attached_pic), None)


def check_stream(stream: VideoStream) -> None:
    """Check that a stream can be decoded.

    Raises:
        ImageError: its codec is not supported.
        ImageTooLargeError: its frames have more than `MOST_PIXELS`.
    """
    context: Any = stream.codec_context  # None, against its type, if there is no decoder
    if context is None:
        raise ImageError("its video codec is not supported")
    if context.width * context.height > MOST_PIXELS:
        raise ImageTooLargeError(f"frames of {context.width}x{context.height} are too large for a video")


@dataclass(frozen=True)
class VideoIndex:
    """The packets of a video stream, each of which holds a frame, in the order of the file: that of decoding.

    Attributes:
        times: (N,) in units of ``unit`` seconds.
        keys: the numbers of the packets that can be decoded without those before them.
        order: the numbers of the packets that are shown, in the order of their times.
        ranks: (N,) the place of each packet in the order of all times.
        is_shown: (N,) whether the packet holds a frame that is shown, and not cut away or only there for others.
    """

    times: np.ndarray
    keys: np.ndarray
    order: np.ndarray
    ranks: np.ndarray
    is_shown: np.ndarray
    unit: Fraction

    def seconds(self, packet: int) -> Fraction:
        """The time of a packet since the first frame."""
        return int(self.times[packet] - self.times[self.order[0]]) * self.unit

    def clock(self, packet: int) -> str:
        """The time of a packet since the first frame, such as `00:00:12.500`."""
        thousandths = round(self.seconds(packet) * 1000)
        minutes, rest = divmod(thousandths, 60_000)
        hours, minutes = divmod(minutes, 60)
        return f"{hours:02}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"

    def key_of(self, packet: int) -> int:
        """The last keyframe that is neither stored nor shown after a packet."""
        place = int(np.searchsorted(self.keys, packet, "right")) - 1
        while place > 0 and self.times[self.keys[place]] > self.times[packet]:
            place -= 1
        return int(self.keys[place]) if place >= 0 else 0


def read_index(container: InputContainer, stream: VideoStream, size: int) -> tuple[VideoIndex, str]:
    """The index of a stream in a file of ``size`` bytes, and why it ends too early; empty if it does not."""
    times, keys = array("q"), array("q")
    hidden, problem, end = array("q"), "", 0
    try:
        for packet in packets_of(container, stream):
            time = packet.pts if packet.pts is not None else packet.dts
            if time is None:
                time = times[-1] + max(packet.duration or 1, 1) if times else 0
            if packet.is_keyframe:
                keys.append(len(times))
            if packet.is_discard or _is_hidden(stream, packet):
                hidden.append(len(times))
            end = max(end, time + (packet.duration or 0))
            times.append(time)
    except failures() as error:
        problem = _reason(error)
    unit = Fraction(stream.time_base or 1)
    all_times = np.asarray(times, np.int64)
    order = np.argsort(all_times, kind="stable")
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    is_shown = np.full(len(order), True)
    is_shown[np.asarray(hidden, np.int64)] = False
    order = order[is_shown[order]]
    problem = problem or _missing_end(container, stream, size, len(times), end * unit)
    return VideoIndex(all_times, np.asarray(keys, np.int64), order, ranks, is_shown, unit), problem


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The packets of a stream that hold data."""
    return (packet for packet in container.demux(stream) if packet.size)


def readable(packets: Iterator[Packet]) -> Iterator[Packet]:
    """Packets until one cannot be read: there the index ends too."""
    unreadable = failures()  # now: later, the interpreter may be shutting down
    try:
        yield from packets
    except unreadable:
        return


def _is_hidden(stream: VideoStream, packet: Packet) -> bool:
    """Whether a packet only helps to decode others; most formats put such data into the packet of a frame."""
    return stream.codec_context.name in ("vp8", "libvpx") and not memoryview(packet)[0] & SHOWN_VP8


def _missing_end(
    container: InputContainer, stream: VideoStream, size: int, packets: int, end: Fraction
) -> str:
    """Why a stream of so many packets, until ``end`` in seconds, is not whole."""
    kind, entries = container.format.name, stream.index_entries
    if "mp4" in kind and len(entries) and entries[-1].pos + entries[-1].size > size:
        return "the file is cut off"
    if kind == "avi" and packets < stream.frames * 99 // 100:
        return "the file is cut off"
    duration = stream.metadata.get("DURATION", "") if "matroska" in kind else ""
    try:
        hours, minutes, seconds = map(float, duration.split(":"))
    except ValueError:
        return ""
    missing = 3600 * hours + 60 * minutes + seconds - float(end)
    return "the file is cut off" if missing > TOLERANCE_S else ""


def every(index: VideoIndex, step: int) -> np.ndarray:
    """The packets of the first frame and every ``step``-th after it."""
    return index.order[::step]


def by_rate(index: VideoIndex, fps: float) -> np.ndarray:
    """The packets of the first frame in each 1/fps second; rounding in the file moves none over a border."""
    times = (index.times[index.order] - index.times[index.order[0]]) * float(index.unit)
    spare = min(0.5, fps * float(np.median(np.diff(times))) / 2) if len(times) > 1 else 0  # half a frame
    slots = np.floor(times * fps + spare)
    return index.order[np.append(True, slots[1:] > slots[:-1])]
