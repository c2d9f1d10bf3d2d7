"""`FrameDecoder`: a decoder of video that gives chosen frames in order, and says which are damaged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..errors import BrokenImageError, ImageError
from .video_index import MOST_PIXELS, VideoIndex, failures

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.stream import VideoStream

    from .video_index import Packet

# with their numbers among the chosen ones
Frames: TypeAlias = "Iterator[tuple[int, VideoFrame | ImageError]]"

THREADS = 4  # of one decoder; a constant, so that the same frames fail on every machine
MOST_HELD = 32  # frames that wait for one that they may depend on; more are a sign of damage
SKIPPABLE = ("h264", "mpeg4", "mpeg2video")  # codecs that know the frames that no other frame needs
EVERY_PACKET_A_FRAME = ("hevc",)  # codecs whose decoder drops damaged frames, and others without a sign


class Chosen:
    """The frames to decode.

    Attributes:
        packets: (F,) their packets, in the order of their times.
        ranks: (F,) the places of these among all packets in that order.
        needed: (N,) whether a packet has to give a frame: a chosen one, or the one before, see `FrameDecoder`.
        latest: (N,) the highest rank of the packets up to each.
    """

    def __init__(self, index: VideoIndex, packets: np.ndarray) -> None:
        self.packets, self.ranks = packets, index.ranks[packets]
        self.needed = np.zeros(len(index.ranks), bool)
        self.needed[packets] = True
        self.needed[np.argsort(index.ranks)[np.maximum(self.ranks - 1, 0)]] = True
        self.latest = np.maximum.accumulate(index.ranks)

    def __len__(self) -> int:
        return len(self.packets)

    def packet(self, number: int) -> int:
        """The packet of a chosen frame."""
        return int(self.packets[number])

    def spans(self, index: VideoIndex, number: int) -> Iterator[range]:
        """The packets to decode, from a chosen frame on: the frames and what they need, in increasing order."""
        span = range(0)
        for packet in map(int, self.packets[number:]):
            key = index.key_of(packet)
            if span and key > span.stop:
                yield span
                span = range(0)
            span = range(span.start, max(span.stop, packet + 1)) if span else range(key, packet + 1)
        yield span


class FrameDecoder:
    """A decoder that is fed packets by their numbers, and gives the chosen frames in order.

    A frame is damaged if one that it may depend on is: any between its keyframe and itself.
    """

    def __init__(self, stream: VideoStream, index: VideoIndex, chosen: Chosen, number: int) -> None:
        """Begin with chosen frame ``number``."""
        self.index, self.chosen, self.number = index, chosen, number
        self.context = stream.codec_context
        self.context.thread_type, self.context.thread_count = "AUTO", THREADS
        self.context.options = {"max_pixels": str(MOST_PIXELS)}
        self.skips = self.context.name in SKIPPABLE
        self.is_strict = self.context.name in EVERY_PACKET_A_FRAME
        self.frames: dict[int, VideoFrame] = {}  # by packet, of chosen ones that wait
        self.damaged: list[int] = []
        self.expected: set[int] = set()
        self.fed = -1  # the last packet
        self.last: VideoFrame | None = None
        self.shown = -1  # the highest rank that came out

    def feed(self, place: int, packet: Packet) -> Frames:
        """The frames that are complete with one more packet."""
        packet.pts, packet.dts = place, None  # the frame will have the same, in any order and format
        if self.is_strict and self.index.is_shown[place]:
            self.expected.add(place)
        if self.skips:
            self.context.skip_frame = "DEFAULT" if self.chosen.needed[place] else "NONREF"
        self.fed = place
        yield from self._take(self._decode(packet))

    def finish(self, stop: int) -> Frames:
        """The frames of all packets before ``stop``, whether they can be decoded or not."""
        yield from self._take(self._decode(None))
        self.context.flush_buffers()
        self.shown = int(self.chosen.latest[stop - 1])
        self._repeat(len(self.chosen))
        yield from self._release(stop)
        self.expected.clear()
        self.last = None

    def _decode(self, packet: Packet | None) -> list[VideoFrame]:
        try:
            return list(self.context.decode(packet))
        except failures():  # of the packets that are decoded at once, any may be the cause
            self.damaged += range(max(0, self.fed - THREADS), self.fed + 1)
            return []

    def _take(self, frames: list[VideoFrame]) -> Frames:
        for frame in frames:
            place = frame.pts
            if place is None or not 0 <= place < len(self.index.ranks):
                continue
            rank = int(self.index.ranks[place])
            self.expected.discard(place)
            if frame.is_corrupt:
                self.damaged.append(place)
            following = int(np.searchsorted(self.chosen.ranks, rank))  # of the chosen frames, the next one
            self._repeat(following)
            if self.number <= following < len(self.chosen) and self.chosen.packet(following) == place:
                self.frames[place] = frame
            self.last, self.shown = frame, max(self.shown, rank)
            yield from self._release()

    def _repeat(self, stop: int) -> None:
        """For packets without a frame, such as a second field, take the frame before: it is shown at that time."""
        for number in range(self.number, stop):
            packet = self.chosen.packet(number)
            if self.last is None or packet > self.fed:
                return
            self.frames.setdefault(packet, self.last)

    def _release(self, stop: int | None = None) -> Frames:
        """The frames that can be judged, or those of all packets before ``stop``."""
        while self.number < len(self.chosen):
            packet = self.chosen.packet(self.number)
            if stop is None:
                is_ready = self.chosen.latest[packet] <= self.shown or len(self.frames) > MOST_HELD
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
