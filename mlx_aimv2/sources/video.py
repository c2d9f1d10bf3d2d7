"""Frames of videos: listed by their timestamps without decoding, then decoded forwards, from keyframe to keyframe."""

from __future__ import annotations

import os
import stat
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BrokenImageError, ImageError, ImageTooLargeError, MissingExtraError
from ..processing.source_image import SourceImage
from .containers import Listing
from .folder_scan import Rules
from .forward import ForwardReader
from .options import SourceOptions
from .video_frame import FrameImage, Turn, turn_of

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.packet import Packet as AnyPacket
    from av.video.stream import VideoStream

    Packet = AnyPacket[VideoStream]

DEFAULT_FPS = 1.0
FORMATS = "asf,avi,dv,flv,gif,h264,hevc,ivf,m4v,matroska,mov,mp4,mpeg,mpegts,mpegvideo,mxf,ogg,webm"
# not among them: playlists and lists of files, which would open other files and addresses
THREADS = 4  # of one decoder; a constant, so that the same frames fail on every machine
MOST_PIXELS = 10**8  # of a frame; a decoder holds a dozen of them
MOST_KEPT = 16  # frames
TOLERANCE_S = 0.5  # between the end of the last frame and the end that the file announces
WITHOUT_OWN_FRAME = 0x10  # this bit of the first byte of a VP8 frame is set if it is shown
SKIPPABLE = ("h264", "mpeg4", "mpeg2video")  # codecs that know the frames that no other frame needs
EVERY_PACKET_A_FRAME = ("hevc",)  # codecs whose decoder drops damaged frames, and others without a sign


def list_images(path: str, rules: Rules, options: SourceOptions) -> Listing:
    """The frames of a video that ``options`` choose, by default one a second.

    Their ids end in the time since the first frame, such as `clip.mp4@00:00:12.500`. Reading the timestamps takes one
    pass over the file. If the file is cut off, its end is one more image, which fails.

    Raises:
        BrokenImageError: the file is not a video, or damaged.
        ImageError: it is not a regular file, or its codec is not supported.
        ImageTooLargeError: its frames have more than `MOST_PIXELS`.
        OSError: it cannot be read.
        MissingExtraError: the package av is not installed.
    """
    mark = _mark(path)
    with _opened(path) as container:
        stream = _video_stream(container)
        if stream is None:
            return Listing(empty="no video stream")
        _check(stream)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        index, problem = _read_index(container, stream)
    if not len(index.order):
        if problem:
            raise BrokenImageError(f"no frame can be read: {problem}")
        return Listing(empty="no frames")
    chosen = _every(index, options.every) if options.every else _by_rate(index, options.fps or DEFAULT_FPS)
    video = _Video(path, mark, index, chosen, aspect)
    images: list[SourceImage] = []
    ids: Counter[str] = Counter()
    for number, packet in enumerate(chosen):
        name = f"{path}@{index.clock(int(packet))}"
        ids[name] += 1
        repeated = f"#{ids[name]}" if ids[name] > 1 else ""
        images.append(SourceImage(name + repeated, partial(video.image, number), path))
    if problem:
        last = index.clock(int(index.order[-1]))
        images.append(SourceImage(path, partial(_fail, f"nothing after {last} can be read: {problem}"), path))
    return Listing(tuple(images))


@dataclass(frozen=True)
class _Index:
    """The packets of a video stream, each of which holds a frame, in the order of the file: that of decoding.

    Attributes:
        times: (N,) in units of ``unit`` seconds.
        keys: the numbers of the packets that can be decoded without those before them.
        order: (N,) the numbers of the packets in the order of their times.
        ranks: (N,) the place of each packet in ``order``.
    """

    times: np.ndarray
    keys: np.ndarray
    order: np.ndarray
    ranks: np.ndarray
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


def _read_index(container: InputContainer, stream: VideoStream) -> tuple[_Index, str]:
    """The index of a stream, and why it ends too early; empty if it does not."""
    times, keys = array("q"), array("q")
    hidden, problem, end = array("q"), "", 0
    try:
        for packet in _packets(container, stream):
            time = packet.pts if packet.pts is not None else packet.dts
            if time is None:
                time = times[-1] + max(packet.duration or 1, 1) if times else 0
            if packet.is_keyframe:
                keys.append(len(times))
            if packet.is_discard or _is_hidden(stream, packet):
                hidden.append(len(times))
            end = max(end, time + (packet.duration or 0))
            times.append(time)
    except _failures() as error:
        problem = _reason(error)
    unit = Fraction(stream.time_base or 1)
    all_times = np.asarray(times, np.int64)
    order = np.argsort(all_times, kind="stable")
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    order = order[~np.isin(order, np.asarray(hidden, np.int64))]
    problem = problem or _missing_end(container, stream, len(times), end * unit)
    return _Index(all_times, np.asarray(keys, np.int64), order, ranks, unit), problem


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    return (packet for packet in container.demux(stream) if packet.size)


def _readable(packets: Iterator[Packet]) -> Iterator[Packet]:
    """Packets until one cannot be read: there the index ends too."""
    failures = _failures()
    try:
        yield from packets
    except failures:
        return


def _is_hidden(stream: VideoStream, packet: Packet) -> bool:
    """Whether a packet only helps to decode others; most formats put such data into the packet of a frame."""
    return stream.codec_context.name in ("vp8", "libvpx") and not memoryview(packet)[0] & WITHOUT_OWN_FRAME


def _missing_end(container: InputContainer, stream: VideoStream, packets: int, end: Fraction) -> str:
    """Why a stream of so many packets, until ``end`` in seconds, is not whole."""
    kind = container.format.name
    announced = (
        len(stream.index_entries) if "mp4" in kind else stream.frames * 99 // 100 if kind == "avi" else 0
    )
    if packets < announced:
        return "the file is cut off"
    duration = stream.metadata.get("DURATION", "") if "matroska" in kind else ""
    try:
        hours, minutes, seconds = map(float, duration.split(":"))
    except ValueError:
        return ""
    missing = 3600 * hours + 60 * minutes + seconds - float(end)
    return "the file is cut off" if missing > TOLERANCE_S else ""


def _every(index: _Index, step: int) -> np.ndarray:
    return index.order[::step]


def _by_rate(index: _Index, fps: float) -> np.ndarray:
    """The packets of the first frame in each 1/fps second; rounding in the file moves none over a border."""
    times = (index.times[index.order] - index.times[index.order[0]]) * float(index.unit)
    spare = min(0.5, fps * float(np.median(np.diff(times))) / 2) if len(times) > 1 else 0  # half a frame
    slots = np.floor(times * fps + spare)
    return index.order[np.append(True, slots[1:] > slots[:-1])]


class _Video:
    """A video and the frames to read from it."""

    def __init__(
        self, path: str, mark: tuple[int, int], index: _Index, chosen: np.ndarray, aspect: Fraction
    ) -> None:
        self.path, self.mark, self.index, self.chosen, self.aspect = path, mark, index, chosen, aspect
        self.turn: Turn | None = None
        self.reader: ForwardReader[VideoFrame | ImageError] = ForwardReader(
            self._frames, self._is_beyond_a_keyframe, MOST_KEPT
        )

    def image(self, number: int) -> FrameImage:
        """The image of a chosen frame, by its number.

        Raises:
            ImageError: it is damaged, or the file has changed.
            OSError: the file cannot be read.
        """
        if _mark(self.path) != self.mark:
            raise ImageError("the video has changed since its frames were listed: run this again")
        frame = self.reader.get(number)
        if isinstance(frame, ImageError):
            raise frame
        if self.turn is None:
            self.turn = turn_of(frame)
        return FrameImage(frame, self.aspect, self.turn)

    def _is_beyond_a_keyframe(self, after: int, number: int) -> bool:
        return self.index.key_of(int(self.chosen[number])) > self.chosen[after]

    def _frames(self, number: int) -> Iterator[tuple[int, VideoFrame | ImageError]]:
        """The chosen frames from ``number`` on, or an error in place of a frame."""
        last = None
        for seeks in (True, False):
            with _opened(self.path) as container:
                stream = _video_stream(container)
                start = self.index.key_of(int(self.chosen[number]))
                if stream is None or (packets := self._from(container, stream, start, seeks)) is None:
                    continue
                for place, frame in self._decoded(_Decoder(stream, self.index, self.chosen, number), packets):
                    if place == len(self.chosen) - 1:
                        last = place, frame
                        break
                    yield place, frame
                break
        if last is not None:  # only now: by then the file is closed
            yield last

    def _decoded(
        self, decoder: _Decoder, packets: Iterator[tuple[int, Packet]]
    ) -> Iterator[tuple[int, VideoFrame | ImageError]]:
        spans = self._spans(decoder.number)
        span = next(spans)
        for place, packet in packets:
            if place >= span.stop:
                yield from decoder.finish(span.stop)
                span = next(spans, range(0))
                if not span:
                    return
            if place in span:
                yield from decoder.feed(place, packet)
        yield from decoder.finish(len(self.index.times))

    def _spans(self, number: int) -> Iterator[range]:
        """The packets to decode, from a chosen frame on: the frames and what they need, in increasing order."""
        span = range(0)
        for packet in map(int, self.chosen[number:]):
            key = self.index.key_of(packet)
            if span and key > span.stop:
                yield span
                span = range(0)
            span = range(span.start, max(span.stop, packet + 1)) if span else range(key, packet + 1)
        yield span

    def _from(
        self, container: InputContainer, stream: VideoStream, start: int, seeks: bool
    ) -> Iterator[tuple[int, Packet]] | None:
        """The packets with their numbers, from ``start`` or earlier on; None if seeking leads nowhere known."""
        packets = _packets(container, stream)
        if not seeks or not start:
            return enumerate(_readable(packets))
        try:
            container.seek(int(self.index.times[start]), stream=stream)
            packet = next(packets, None)
        except _failures():
            return None
        if packet is None:
            return None
        places = np.flatnonzero(self.index.times == packet.pts)
        if len(places) != 1 or places[0] > start:
            return None
        return enumerate(chain([packet], _readable(packets)), int(places[0]))


class _Decoder:
    """A decoder that is fed packets by their numbers, and gives the chosen frames in order.

    A frame is damaged if one that it may depend on is: any between its keyframe and itself.
    """

    def __init__(self, stream: VideoStream, index: _Index, chosen: np.ndarray, number: int) -> None:
        self.index, self.number = index, number
        self.context = stream.codec_context
        self.context.thread_type, self.context.thread_count = "AUTO", THREADS
        self.context.options = {"max_pixels": str(MOST_PIXELS)}
        self.is_strict = self.context.name in EVERY_PACKET_A_FRAME
        self.chosen, self.ranks = chosen, index.ranks[chosen]
        self.latest = np.maximum.accumulate(index.ranks)  # the last rank that packets up to each have
        self.frames: dict[int, VideoFrame] = {}
        self.damaged: list[int] = []
        self.expected: set[int] = set()
        self.needed = np.full(len(index.ranks), self.context.name not in SKIPPABLE)
        self.needed[chosen] = True
        self.needed[np.argsort(index.ranks)[np.maximum(self.ranks - 1, 0)]] = True  # see `_take`
        self.last: VideoFrame | None = None
        self.shown = -1  # the highest rank that came out

    def feed(self, place: int, packet: Packet) -> Iterator[tuple[int, VideoFrame | ImageError]]:
        """The frames that are complete with one more packet."""
        packet.pts, packet.dts = place, None  # the frame will have the same, in any order and format
        if self.is_strict:
            self.expected.add(place)
        self.context.skip_frame = "DEFAULT" if self.needed[place] else "NONREF"
        yield from self._take(self._decode(place, packet))

    def finish(self, stop: int) -> Iterator[tuple[int, VideoFrame | ImageError]]:
        """The frames of all packets before ``stop``, whether they can be decoded or not."""
        yield from self._take(self._decode(stop, None))
        self.context.flush_buffers()
        self.shown = int(self.latest[stop - 1])
        yield from self._release(stop)
        self.expected.clear()
        self.last = None

    def _decode(self, place: int, packet: Packet | None) -> list[VideoFrame]:
        try:
            return list(self.context.decode(packet))
        except _failures():
            self.damaged.append(
                max(0, place - THREADS)
            )  # of those that are decoded at once, any may have failed
            return []

    def _take(self, frames: list[VideoFrame]) -> Iterator[tuple[int, VideoFrame | ImageError]]:
        for frame in frames:
            place = frame.pts
            if place is None or not 0 <= place < len(self.index.ranks):
                continue
            rank = int(self.index.ranks[place])
            self.expected.discard(place)
            if frame.is_corrupt:
                self.damaged.append(place)
            following = int(np.searchsorted(self.ranks, rank))  # of the chosen frames, the next one
            if (
                self.last is not None
            ):  # a packet without a frame, such as a second field, repeats the one before
                for number in range(self.number, following):
                    self.frames.setdefault(int(self.chosen[number]), self.last)
            if self.number <= following < len(self.chosen) and self.chosen[following] == place:
                self.frames[place] = frame
            self.last, self.shown = frame, max(self.shown, rank)
            yield from self._release()

    def _release(self, stop: int | None = None) -> Iterator[tuple[int, VideoFrame | ImageError]]:
        """The frames that can be judged, or those of all packets before ``stop``."""
        while self.number < len(self.chosen):
            packet = int(self.chosen[self.number])
            if stop is None:
                is_ready = self.latest[packet] <= self.shown or len(self.frames) > MOST_KEPT
            else:
                is_ready = packet < stop
            if not is_ready:
                return
            self.number += 1
            yield self.number - 1, self._judge(packet)

    def _judge(self, packet: int) -> VideoFrame | ImageError:
        key, frame = self.index.key_of(packet), self.frames.pop(packet, None)
        lost = [*self.damaged, *(place for place in self.expected if self.index.ranks[place] < self.shown)]
        self.damaged = [place for place in self.damaged if place >= key]
        if any(key <= place <= packet and self.index.times[place] >= self.index.times[key] for place in lost):
            return BrokenImageError("the video is damaged here")
        return BrokenImageError("no frame can be decoded here") if frame is None else frame


@contextmanager
def _opened(path: str) -> Iterator[InputContainer]:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("Reading videos", "av", "video") from error
    with Path(path).open("rb"):
        pass  # else the system's reason
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    try:
        container = av.open(f"file:{path}", "r", options=options, metadata_errors="replace")
    except _failures() as error:
        raise BrokenImageError("not a video, or damaged") from error
    with container:
        yield container


def _failures() -> tuple[type[Exception], ...]:
    from av.error import FFmpegError

    return (FFmpegError,)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _video_stream(container: InputContainer) -> VideoStream | None:
    """The first video stream; the cover of an album is none."""
    from av.stream import Disposition

    streams = container.streams.video
    return next((s for s in streams if not s.disposition & Disposition.attached_pic), None)


def _check(stream: VideoStream) -> None:
    context: Any = stream.codec_context  # None, against its type, if there is no decoder
    if context is None:
        raise ImageError("its video codec is not supported")
    if context.width * context.height > MOST_PIXELS:
        raise ImageTooLargeError(f"frames of {context.width}x{context.height} are too large for a video")


def _mark(path: str) -> tuple[int, int]:
    status = os.stat(path)  # noqa: PTH116
    if not stat.S_ISREG(status.st_mode):  # opening a pipe waits for a writer
        raise ImageError("not a regular file")
    return status.st_size, status.st_mtime_ns


def _fail(message: str) -> bytes:
    raise BrokenImageError(message)
