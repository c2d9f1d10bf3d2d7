"""Extensions of file names: those of images are those of the formats that are read."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from mlx_aimv2.processing import optional_formats
from mlx_aimv2.processing.decode import DecodeOptions, decode_image
from mlx_aimv2.processing.formats import FORMATS
from mlx_aimv2.processing.optional_formats import OPTIONAL_FORMATS
from mlx_aimv2.sources.extensions import IMAGE_EXTENSIONS, KINDS, is_image, kind_of


def test_the_endings_are_those_of_the_formats_that_are_read() -> None:
    Image.init()
    registered = {e: f for e, f in Image.registered_extensions().items() if f in (*FORMATS, "AVIF", "MPO")}
    heif = {".heic", ".heics", ".heif", ".heifs", ".hif"}
    assert set(registered) | heif | {".jpx"} == set(IMAGE_EXTENSIONS)
    others = {ending for endings in KINDS.values() for ending in endings.split()}
    assert not others & IMAGE_EXTENSIONS
    optional = {ending for form in OPTIONAL_FORMATS for ending in form.extensions}
    assert not optional & (others | IMAGE_EXTENSIONS)
    unread = {
        e for e, f in Image.registered_extensions().items() if f not in (*FORMATS, "AVIF", "MPO", "HEIF")
    }
    assert unread - others - optional <= {".bufr", ".grib", ".h5", ".hdf", ".iim"}  # data that is no image


SAVED = {".avifs": "AVIF", ".jps": "JPEG", ".icns": "ICNS"}


MODES = {".pbm": "1", ".pgm": "L", ".bw": "L", ".rgba": "RGBA", ".pfm": "F"}


NEED_MORE = {
    ".heic",
    ".heics",
    ".heif",
    ".heifs",
    ".hif",
    ".psd",
}  # another package, or nothing that writes them


@pytest.mark.parametrize("ending", sorted(IMAGE_EXTENSIONS - NEED_MORE))
def test_every_ending_is_of_a_file_that_can_be_read(ending: str) -> None:
    image = Image.new("RGB", (32, 32), (200, 100, 50)).convert(MODES.get(ending, "RGB"))
    Image.init()
    stream = io.BytesIO()
    image.save(stream, SAVED.get(ending) or Image.registered_extensions()[ending])
    width, height = decode_image(stream.getvalue(), DecodeOptions()).size
    assert width == height >= 32


@pytest.mark.parametrize(("name", "advice"), [
    ("a.DNG", "camera raw, pip install 'mlx-aimv2[raw]'"), ("b.cr3", "camera raw, pip install 'mlx-aimv2[raw]'"),
    ("c.jxl", "JPEG XL, pip install 'mlx-aimv2[jxl]'"),
])  # fmt: skip
def test_some_formats_are_images_if_their_package_is_installed(
    name: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules: list[str] = []
    for installed in (True, False):
        monkeypatch.setattr(
            optional_formats,
            "_is_installed",
            lambda module, result=installed: modules.append(module) or result,
        )
        assert is_image(name) == installed and not is_image(f".{name}")
    assert set(modules) == {"pillow_jxl" if name == "c.jxl" else "rawpy"}
    assert kind_of(name[1:].lower()) == advice
