"""Frames of videos: listed by their timestamps without decoding, then decoded forwards, from keyframe to keyframe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from ..errors import BrokenImageError, ImageError
from ..processing.source_image import SourceImage
from .containers import Listing, failing, unique_id
from .file_state import FileState, check_unchanged, state_of
from .folder_scan import Rules
from .forward import ForwardReader
from .options import SourceOptions
from .video_decoder import Chosen, FrameDecoder, Frames
from .video_frame import FrameImage, Turn, turn_of
from .video_index import (
    VideoIndex,
    by_rate,
    check_stream,
    every,
    failures,
    open_video,
    packets_of,
    read_index,
    readable,
    video_stream,
)

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from .video_index import Packet

DEFAULT_FPS = 1.0
MOST_KEPT = 16  # frames that were passed over


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
    state = state_of(path)
    with open_video(path) as container:
        stream = video_stream(container)
        if stream is None:
            return Listing(empty="no video stream")
        check_stream(stream)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        index, problem = read_index(container, stream, state.size)
    if not len(index.order):
        if problem:
            raise BrokenImageError(f"no frame can be read: {problem}")
        return Listing(empty="no frames")
    chosen = every(index, options.every) if options.every else by_rate(index, options.fps or DEFAULT_FPS)
    video = _Video(path, state, index, Chosen(index, chosen), aspect)
    images: list[SourceImage] = []
    ids: Counter[str] = Counter()
    for number, packet in enumerate(chosen):
        name = unique_id(ids, f"{path}@{index.clock(int(packet))}")
        images.append(SourceImage(name, partial(video.image, number), path))
    if problem:
        last = index.clock(int(index.order[-1]))
        error = BrokenImageError(f"nothing after {last} can be read: {problem}")
        images.append(SourceImage(path, failing(error), path))
    return Listing(tuple(images))


class _Video:
    """A video and the frames to read from it."""

    def __init__(
        self, path: str, state: FileState, index: VideoIndex, chosen: Chosen, aspect: Fraction
    ) -> None:
        self.path, self.state, self.index, self.chosen, self.aspect = path, state, index, chosen, aspect
        self.turn: Turn | None = None
        self.reader: ForwardReader[VideoFrame | ImageError] = ForwardReader(
            self._frames, self._is_beyond_a_keyframe, MOST_KEPT
        )

    def image(self, number: int) -> FrameImage:
        """The image of a chosen frame, by its number.

        Raises:
            ImageError: it is damaged.
            ChangedFileError: the file has changed.
            OSError: the file cannot be read.
        """
        check_unchanged(self.path, self.state, "video")
        frame = self.reader.get(number)
        if isinstance(frame, ImageError):
            raise frame
        if self.turn is None:
            self.turn = turn_of(frame)
        return FrameImage(frame, self.aspect, self.turn)

    def _is_beyond_a_keyframe(self, after: int, number: int) -> bool:
        return self.index.key_of(self.chosen.packet(number)) > self.chosen.packet(after)

    def _frames(self, number: int) -> Frames:
        """The chosen frames from ``number`` on, or an error in place of a frame."""
        last = None
        for seeks in (True, False):
            with open_video(self.path) as container:
                stream = video_stream(container)
                start = self.index.key_of(self.chosen.packet(number))
                if stream is None or (packets := self._from(container, stream, start, seeks)) is None:
                    continue
                for place, frame in self._decoded(
                    FrameDecoder(stream, self.index, self.chosen, number), packets
                ):
                    if place == len(self.chosen) - 1:
                        last = place, frame
                        break
                    yield place, frame
                break
        if last is not None:  # only now: by then the file is closed
            yield last

    def _decoded(self, decoder: FrameDecoder, packets: Iterator[tuple[int, Packet]]) -> Frames:
        spans = self.chosen.spans(self.index, decoder.number)
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

    def _from(
        self, container: InputContainer, stream: VideoStream, start: int, seeks: bool
    ) -> Iterator[tuple[int, Packet]] | None:
        """The packets with their numbers, from ``start`` or earlier on; None if seeking leads nowhere known."""
        packets = packets_of(container, stream)
        if not seeks or not start:
            return enumerate(readable(packets))
        try:
            container.seek(int(self.index.times[start]), stream=stream)
            packet = next(packets, None)
        except failures():
            return None
        if packet is None:
            return None
        places = np.flatnonzero(self.index.times == packet.pts)
        if len(places) != 1 or places[0] > start:
            return None
        return enumerate(chain([packet], readable(packets)), int(places[0]))
