"""Frames of videos: which are chosen, their ids, pixels, order, and everything that may be wrong with a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.found_images import values as values_of

from mlx_aimv2.errors import ImageError, InputError, MissingExtraError
from mlx_aimv2.processing.decode import decode_image
from mlx_aimv2.processing.options import DecodeOptions
from mlx_aimv2.sources import video_index
from mlx_aimv2.sources.find import Found, find_sources
from mlx_aimv2.sources.options import SourceOptions
from mlx_aimv2.sources.video_decoder import FrameDecoder

av: Any = pytest.importorskip("av")
ALL = SourceOptions(every=1)
RATE = 25
FORMATS = {  # file name -> codec and its options; most of them store frames out of order
    "clip.mp4": ("libx264", {}),
    "clip.mkv": ("libx264", {"bf": "3"}),
    "clip.ts": ("libx264", {}),
    "clip.mov": ("libx265", {"x265-params": "log-level=none"}),
    "clip.avi": ("mpeg4", {"bf": "2", "qmin": "1", "qmax": "1"}),
    "clip.mpg": ("mpeg2video", {"bf": "2", "qmin": "1", "qmax": "1"}),
    "clip.webm": ("libvpx-vp9", {}),
}


def write(
    path: Path,
    frames: Iterable[np.ndarray],
    codec: str = "libx264",
    times: Iterable[int] | None = None,
    options: Mapping[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    prepare: Callable[[Any], None] = lambda stream: None,
    **container: Any,
) -> Path:
    """A video of frames (H, W, 3), at ``times`` in thousandths of a second."""
    frames = list(frames)
    with av.open(str(path), "w", **container) as file:
        stream = file.add_stream(codec, rate=RATE, options=dict(options or {}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.gop_size = pix_fmt, gop
        stream.codec_context.time_base = Fraction(1, RATE if times is None else 1000)
        prepare(stream)
        for pixels, time in zip(frames, times or range(len(frames)), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, RATE if times is None else 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def shades(count: int, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Grey frames, each 4 brighter than the one before."""
    return [np.full((*size, 3), 20 + 4 * number, np.uint8) for number in range(count)]


def noise(count: int) -> list[np.ndarray]:
    """Frames that move, so that every packet has content."""
    base = np.random.default_rng(0).integers(0, 255, (12, 20, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return [np.roll(base, 3 * number, 1) for number in range(count)]


def pixels(image: Any) -> np.ndarray:
    return np.asarray(decode_image(image))


def shade(image: Any) -> int:
    """The number of the shade of a frame."""
    return round((float(pixels(image).mean()) - 20) / 4)


def values(found: Found) -> dict[str, int | str]:
    """Id, without the path of the video, to the number of the shade, or to the error."""
    return values_of(found, shade)


def clock(milliseconds: int) -> str:
    return f"00:00:{milliseconds // 1000:02}.{milliseconds % 1000:03}"


@pytest.mark.parametrize("name", FORMATS)
def test_frames_come_in_the_order_of_their_times(tmp_path: Path, name: str) -> None:
    codec, options = FORMATS[name]
    path = write(tmp_path / name, shades(50), codec, options=options)
    found = find_sources([str(path)], options=ALL)
    assert values(found) == {f"{name}@{clock(40 * number)}": number for number in range(50)}
    assert set(found.files) == {str(path)}
    sparse = find_sources([str(path)], options=SourceOptions(every=15))
    assert list(values(sparse).values()) == [0, 15, 30, 45]


def test_one_frame_a_second_by_default(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", shades(56))
    assert values(find_sources([str(path)])) == {
        "a.mp4@00:00:00.000": 0,
        "a.mp4@00:00:01.000": 25,
        "a.mp4@00:00:02.000": 50,
    }
    assert list(values(find_sources([str(path)], options=SourceOptions(fps=0.5))).values()) == [0, 50]


def test_one_choice_of_frames() -> None:
    with pytest.raises(InputError, match="--fps and --every both say which frames: give one"):
        SourceOptions(fps=2, every=3)


def test_a_rate_like_that_of_the_video_takes_every_frame(tmp_path: Path) -> None:
    thirds = [round(1000 * number / 30) for number in range(40)]  # Matroska rounds to thousandths
    path = write(tmp_path / "a.mkv", shades(40), times=thirds)
    for fps in (30, 1000):
        assert list(values(find_sources([str(path)], options=SourceOptions(fps=fps))).values()) == [
            *range(40)
        ]
    assert list(values(find_sources([str(path)], options=SourceOptions(fps=15))).values()) == [
        *range(0, 40, 2)
    ]


def test_variable_frame_rate(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", shades(6), times=[0, 10, 20, 4000, 4500, 9000])
    assert values(find_sources([str(path)])) == {
        "a.mkv@00:00:00.000": 0,
        "a.mkv@00:00:04.000": 3,
        "a.mkv@00:00:09.000": 5,
    }


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    for start in (-400, 7000):
        path = write(tmp_path / f"{start}.mkv", shades(3), times=[start + n * 40 for n in range(3)])
        names = [name.partition("@")[2] for name in find_sources([str(path)], options=ALL).names]
        assert names == ["00:00:00.000", "00:00:00.040", "00:00:00.080"]


def test_frames_of_one_millisecond_have_ids_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", shades(3), "ffv1", times=[0, 0, 1])
    assert values(find_sources([str(path)], options=ALL)) == {
        "a.mkv@00:00:00.000": 0,
        "a.mkv@00:00:00.000#2": 1,
        "a.mkv@00:00:00.001": 2,
    }


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_any_order_gives_the_same_pixels(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, noise(150))
    images = find_sources([str(path)], options=SourceOptions(every=2)).images
    forwards = [pixels(image) for image in images]
    for number in np.random.default_rng(0).permutation(len(images))[:40]:
        np.testing.assert_array_equal(pixels(images[number]), forwards[number])
    again = find_sources([str(path)], options=SourceOptions(every=2)).images
    for number in range(60, len(images)):  # as a run that goes on where it stopped
        np.testing.assert_array_equal(pixels(again[number]), forwards[number])


def test_far_frames_are_reached_by_seeking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4", shades(50), gop=10)
    images = find_sources([str(path)], options=ALL).images
    fed: list[int] = []
    feed = FrameDecoder.feed
    monkeypatch.setattr(
        FrameDecoder, "feed", lambda self, place, packet: (fed.append(place), feed(self, place, packet))[1]
    )
    assert round((float(pixels(images[45]).mean()) - 20) / 4) == 45
    assert min(fed) == 40


def test_only_what_the_chosen_frames_need_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4", shades(50), options={"bf": "0"}, gop=10)
    fed: list[int] = []
    feed = FrameDecoder.feed
    monkeypatch.setattr(
        FrameDecoder, "feed", lambda self, place, packet: (fed.append(place), feed(self, place, packet))[1]
    )
    assert list(values(find_sources([str(path)], options=SourceOptions(every=21))).values()) == [0, 21, 42]
    assert fed == [0, 20, 21, 40, 41, 42]


def test_frames_that_no_other_needs_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"bf": "3", "b_strategy": "0", "b-pyramid": "none"}  # three of four frames
    path = write(tmp_path / "a.mp4", noise(60), options=options, gop=60)
    expected = [pixels(image) for image in find_sources([str(path)], options=ALL).images[::25]]
    fed: list[Any] = []
    decoded: list[Any] = []
    decode = FrameDecoder._decode

    def counted(self: FrameDecoder, packet: Any) -> Any:
        fed.append(packet)
        frames = decode(self, packet)
        decoded.extend(frames)
        return frames

    monkeypatch.setattr(FrameDecoder, "_decode", counted)
    for image, before in zip(
        find_sources([str(path)], options=SourceOptions(every=25)).images, expected, strict=True
    ):
        np.testing.assert_array_equal(pixels(image), before)
    assert len(fed) > 50
    assert len(decoded) < len(fed) / 2


def corners(image: Any) -> list[str]:
    """The colours of the corners: upper left, upper right, lower left, lower right."""
    upright = pixels(image)
    height, width, _ = upright.shape
    names = np.array(["red", "green", "blue"])
    return [
        str(names[upright[y, x].argmax()]) if upright[y, x].min() < 90 else "white"
        for y in (height // 8, height - 1 - height // 8)
        for x in (width // 8, width - 1 - width // 8)
    ]


def quarters() -> np.ndarray:
    """Red and green over blue and white."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32, 0] = image[:24, 32:, 1] = image[24:, :32, 2] = 255
    image[24:, 32:] = 255
    return image


@pytest.mark.parametrize(
    ("degrees", "hflip", "vflip", "expected"),
    [
        (0, False, False, ["red", "green", "blue", "white"]),
        (90, False, False, ["green", "white", "red", "blue"]),
        (-90, False, False, ["blue", "red", "white", "green"]),
        (180, False, False, ["white", "blue", "green", "red"]),
        (0, True, False, ["green", "red", "white", "blue"]),
        (0, False, True, ["blue", "white", "red", "green"]),
    ],
)
def test_frames_are_turned_upright(
    tmp_path: Path, degrees: int, hflip: bool, vflip: bool, expected: list[str]
) -> None:
    path = write(
        tmp_path / "a.mp4",
        [quarters()] * 2,
        prepare=lambda stream: stream.set_display_rotation(degrees, hflip=hflip, vflip=vflip),
    )
    (image,) = find_sources([str(path)]).images
    assert corners(image) == expected
    assert decode_image(image).size == ((48, 64) if abs(degrees) == 90 else (64, 48))


@pytest.mark.parametrize(("aspect", "size"), [((4, 3), (85, 48)), ((1, 2), (64, 96)), ((100, 1), (64, 48))])
def test_pixels_become_square(tmp_path: Path, aspect: tuple[int, int], size: tuple[int, int]) -> None:
    def prepare(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(*aspect)

    path = write(tmp_path / "a.mkv", shades(1), prepare=prepare)
    assert decode_image(find_sources([str(path)]).images[0]).size == size


WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}  # of red and blue in the luma
SPACES = {"bt601": 6, "bt709": 1, "unspecified": 2}


def encoded(color: np.ndarray, matrix: str, full: bool, bits: int) -> tuple[int, int, int]:
    """The samples of a colour."""
    red, blue = WEIGHTS[matrix]
    r, g, b = color / 255
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
    peak, scale = 2**bits - 1, 2 ** (bits - 8)
    if full:
        return round(y * peak), round(cb * peak + 128 * scale), round(cr * peak + 128 * scale)
    return tuple(round(value * scale) for value in (16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr))  # type: ignore


@pytest.mark.parametrize(
    ("space", "matrix", "size", "full", "pix_fmt"),
    [
        ("bt601", "bt601", (64, 48), False, "yuv420p"),
        ("bt709", "bt709", (64, 48), False, "yuv420p"),
        ("bt601", "bt601", (64, 48), True, "yuv420p"),
        ("bt709", "bt709", (64, 48), True, "yuv444p"),
        ("bt709", "bt709", (64, 48), False, "yuv420p10le"),
        ("unspecified", "bt601", (64, 48), False, "yuv420p"),
        ("unspecified", "bt709", (1280, 16), False, "yuv420p"),
    ],
)
def test_colours(
    tmp_path: Path, space: str, matrix: str, size: tuple[int, int], full: bool, pix_fmt: str
) -> None:
    colors = np.array(
        [[200, 40, 30], [20, 180, 60], [30, 50, 220], [128, 128, 128], [255, 255, 255], [0, 0, 0]]
    )
    path = tmp_path / "a.mkv"
    bits = 10 if "10" in pix_fmt else 8
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.colorspace, stream.codec_context.color_range = SPACES[space], 2 if full else 1
        for number, color in enumerate(colors):
            frame = av.VideoFrame(*size, pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            frame.colorspace, frame.color_range = SPACES[space], 2 if full else 1
            for plane, sample in zip(frame.planes, encoded(color, matrix, full, bits), strict=True):
                samples = plane.buffer_size // (bits // 8 if bits == 8 else 2)
                plane.update(np.full(samples, sample, np.uint8 if bits == 8 else np.uint16).tobytes())
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    images = find_sources([str(path)], options=ALL).images
    found = np.array([pixels(image)[8, 8] for image in images])
    np.testing.assert_allclose(found, colors, atol=2)


def test_packets_without_a_frame_show_the_one_before(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", shades(20), "libvpx", options={"crf": "4", "b": "2000000"})
    copy = tmp_path / "b.mkv"
    with av.open(str(path)) as source, av.open(str(copy), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(source.streams.video[0])):
            if packet.size:
                data = bytearray(bytes(packet))
                data[0] &= 0xFF if number != 7 else 0xEF  # a frame of VP8 that is not shown
                changed = av.Packet(bytes(data))
                changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
                changed.is_keyframe, changed.stream = packet.is_keyframe, stream
                target.mux(changed)
    found = find_sources([str(copy)], options=ALL)
    assert [*values(found).values()] == [*range(7), *range(8, 20)]
    assert "b.mkv@00:00:00.280" not in values(found)


def test_colours_that_cannot_be_converted_are_named(tmp_path: Path) -> None:
    def prepare(stream: Any) -> None:
        stream.codec_context.colorspace = 8  # YCgCo

    path = write(tmp_path / "a.mkv", shades(1), "ffv1", prepare=prepare)
    message = "colours of the kind 8 of H.273 are not supported: convert the video"
    assert values(find_sources([str(path)])) == {"a.mkv@00:00:00.000": message}


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_frames_that_are_cut_away_are_not_shown(tmp_path: Path, codec: str) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {"bf": "0"}
    path = write(tmp_path / "a.mp4", shades(40), codec, options=options, gop=25)
    data = bytearray(path.read_bytes())
    entry = data.index(b"elst") + 12  # of an edit list: the duration, and the first time that is shown
    start = int.from_bytes(data[entry + 4 : entry + 8], "big")
    data[entry : entry + 4] = (1000).to_bytes(4, "big")
    data[entry + 4 : entry + 8] = (start + 10 * 12800 // RATE).to_bytes(4, "big")
    path.write_bytes(data)
    found = values(find_sources([str(path)], options=ALL))
    assert list(found.items())[:2] == [("a.mp4@00:00:00.000", 10), ("a.mp4@00:00:00.040", 11)]
    assert list(found.values()) in ([*range(10, 35)], [*range(10, 36)])


def cut(path: Path, keep: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    return path


@pytest.mark.parametrize(
    ("name", "options"), [("a.mp4", {"movflags": "faststart"}), ("a.mkv", {}), ("a.avi", {})]
)
def test_a_video_that_is_cut_off(tmp_path: Path, name: str, options: Mapping[str, str]) -> None:
    whole = write(tmp_path / name, noise(100), "mpeg4", options={"b": "4000000"}, container_options=options)
    images = find_sources([str(whole)], options=ALL).images
    expected = [pixels(image) for image in images]
    images = find_sources([str(cut(whole, 0.6))], options=ALL).images
    *frames, end = images
    assert 40 < len(frames) < 75
    for image, before in zip(frames[:-3], expected, strict=False):
        np.testing.assert_array_equal(pixels(image), before)
    last = str(frames[-1]).partition("@")[2]
    with pytest.raises(ImageError, match=f"{name}: nothing after {last} can be read: the file is cut off"):
        decode_image(end)


def damage(path: Path, packet: int, erase: bool) -> None:
    """Change the content of a packet, or erase it."""
    with av.open(str(path)) as file:
        packets = [p for p in file.demux(file.streams.video[0]) if p.size]
        start, size = packets[packet].pos, packets[packet].size
    data = bytearray(path.read_bytes())
    if erase:
        data[start : start + size] = bytes(size)
    for place in range(start + size // 3, start + size):
        data[place] = data[place] * 7 + 13 & 255
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("codec", "erase"),
    [("libx264", False), ("mpeg4", False), ("libx264", True), ("libx265", True), ("mpeg4", True)],
)
def test_damage_spoils_no_other_frame_unseen(tmp_path: Path, codec: str, erase: bool) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = write(tmp_path / "a.mp4", noise(60), codec, options=options, gop=15)
    expected = [pixels(image) for image in find_sources([str(path)], options=ALL).images]
    damage(path, 19, erase)
    failed = 0
    for image, before in zip(find_sources([str(path)], options=ALL).images, expected, strict=True):
        try:
            np.testing.assert_array_equal(pixels(image), before)
        except ImageError as error:
            assert error.message == "the video is damaged here"
            failed += 1
    assert 0 < failed <= 15


def test_a_video_that_changes_or_vanishes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", shades(50))
    images = find_sources([str(path)]).images
    decode_image(images[0])
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(
        ImageError, match="the video has changed since its images were listed: run this again"
    ):
        decode_image(images[1])
    path.unlink()
    with pytest.raises(ImageError, match=r"a\.mp4@00:00:01\.000: cannot be read: No such file or directory"):
        decode_image(images[1])


def test_frames_that_are_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4", shades(1, (480, 640)))
    with pytest.raises(ImageError, match=r"640x480 is 0\.3 megapixels, more than the 0\.1 allowed"):
        decode_image(find_sources([str(path)]).images[0], DecodeOptions(max_megapixels=0.1))
    monkeypatch.setattr(video_index, "MOST_PIXELS", 10**5)
    with pytest.raises(ImageError, match="frames of 640x480 are too large for a video"):
        decode_image(find_sources([str(path)]).images[0])


def write_audio(path: Path, cover: bool) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=8000)
        if cover:
            from av.stream import Disposition

            picture = file.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj420p"
            picture.disposition = Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(quarters(), "rgb24")
            frame.pts = 0
            file.mux([*picture.encode(frame), *picture.encode()])
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        sound.sample_rate, sound.pts = 8000, 0
        file.mux([*stream.encode(sound), *stream.encode()])
    return path


@pytest.mark.parametrize("cover", [False, True])
def test_sound_is_no_video(tmp_path: Path, cover: bool) -> None:
    path = write_audio(tmp_path / "a.mp4", cover)
    with pytest.raises(InputError, match=r"no images in the video .*a\.mp4: no video stream"):
        find_sources([str(path)])


def test_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        file.start_encoding()
    with pytest.raises(InputError, match=r"no images in the video .*a\.avi: no frames"):
        find_sources([str(path)])


def test_a_stream_that_turns_up_late_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def packets_of(container: Any, stream: Any) -> Any:
        raise IndexError("list index out of range")

    path = write(tmp_path / "a.ts", shades(50))
    monkeypatch.setattr(video_index, "packets_of", packets_of)
    message = "no frame can be read: its streams contradict each other"
    assert values(find_sources([str(path)])) == {"a.ts": message}


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:a.ts\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("content", [b"", b"no video", PLAYLIST, b"ffconcat version 1.0\nfile a.ts\n"])
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "a.ts", shades(50))
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert values(find_sources([str(path)])) == {"a.mp4": "not a video, or damaged"}


def test_special_and_missing_files_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert values(find_sources([str(tmp_path / "pipe.mp4")])) == {"pipe.mp4": "not a regular file"}
    path = tmp_path / "gone.mp4"
    assert values(find_sources([str(path)])) == {
        "gone.mp4": f"{path}: cannot be read: No such file or directory"
    }


@pytest.mark.parametrize("name", ["with:colon%20.mp4", "with\nnewline.mp4", "not-utf8-\udcff.mp4", "-x.mp4"])
def test_names_are_only_names(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.mp4", shades(2)).rename(tmp_path / name)
    assert values(find_sources([str(tmp_path / name)])) == {f"{name}@00:00:00.000": 0}


def test_videos_in_folders_are_read_on_request(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", shades(30))
    write(tmp_path / "b.ts", shades(50))
    (tmp_path / "c.mp4").write_bytes(b"no video")
    write_audio(tmp_path / "d.mp4", cover=False)
    with pytest.raises(InputError, match=r"no images in the folder"):
        find_sources([str(tmp_path)])
    found = find_sources([str(tmp_path)], options=SourceOptions(fps=1))
    assert values(found) == {
        "a.mp4@00:00:00.000": 0,
        "a.mp4@00:00:01.000": 25,
        "c.mp4": "not a video, or damaged",
    }
    assert found.notices() == ["left out 2 files: 1 .mp4 (video, no video stream), 1 other (.ts)"]
    assert values(find_sources([str(tmp_path / "*.ts")])) == {"b.ts@00:00:00.000": 0, "b.ts@00:00:01.000": 25}


def test_the_package_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4", shades(1))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"needs the package av: pip install 'mlx-aimv2\[video\]'"):
        decode_image(find_sources([str(path)]).images[0])


def test_many_videos_are_not_open_at_once(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / f"{n:02}.mp4", shades(30), gop=30)) for n in range(12)]
    images = find_sources(paths, options=SourceOptions(every=10)).images
    for image in images[::3]:  # the first frame of each
        decode_image(image)
    readers = [image.open.func.__self__.reader for image in images[::3]]  # type: ignore[union-attr]
    assert sum(reader._items is not None for reader in readers) <= 8
    assert [round((float(pixels(image).mean()) - 20) / 4) for image in images] == [0, 10, 20] * 12
