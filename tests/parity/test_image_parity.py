"""The image processor against the Pillow path of transformers' CLIPImageProcessor."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlx_aimv2 import Aimv2VisionConfig, load
from mlx_aimv2.processing.decode import DecodeOptions, decode_image
from mlx_aimv2.processing.image import ImageProcessor, ImageProcessorConfig, NativeOptions
from mlx_aimv2.processing.image_settings import find_settings

transformers = pytest.importorskip("transformers")
pil_processors = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")

pytestmark = pytest.mark.parity

SIZES = [(640, 480), (333, 501), (1, 1), (7, 300), (224, 224), (225, 223), (97, 1000), (30, 41)]


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 4), dtype=np.uint8)
    pixels[: height // 2] //= 3  # some structure, so that a shift would show
    image = Image.fromarray(pixels)
    return image if mode == "RGBA" else image.convert("RGB").convert(mode)


def reference(config: ImageProcessorConfig, image: Any) -> np.ndarray:
    processor = pil_processors.CLIPImageProcessorPil(**config.to_dict())
    return np.moveaxis(np.asarray(processor(image)["pixel_values"][0]), 0, -1)


@pytest.mark.parametrize("edge", [224, 336, 448])
@pytest.mark.parametrize("size", SIZES)
def test_fixed_sizes_are_bit_identical(size: tuple[int, int], edge: int) -> None:
    config = ImageProcessorConfig.default(edge)
    image = noise(*size)
    assert np.array_equal(ImageProcessor(config)(image), reference(config, image))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "YCbCr", "1", "RGBA"])
def test_modes_are_bit_identical(mode: str) -> None:
    config = ImageProcessorConfig.default(224)
    image = noise(333, 250, mode)
    assert np.array_equal(ImageProcessor(config)(image), reference(config, image))


def test_dropped_transparency_is_bit_identical_to_the_older_reference() -> None:
    config = ImageProcessorConfig.default(224)
    image = noise(333, 250, "RGBA")
    dropped = ImageProcessor(config, decode=DecodeOptions(background="drop"))(image)
    assert np.array_equal(dropped, reference(config, image.convert("RGB")))


@pytest.mark.parametrize(
    "fields",
    [
        {"do_center_crop": False},
        {"do_resize": False},
        {"do_resize": False, "crop_size": (301, 500)},
        {"size": (100, 180), "crop_size": (90, 200)},
        {"size": 100, "crop_size": (181, 99)},
        {"resample": 2},
        {"resample": 0},
        {"do_rescale": False},
        {"do_normalize": False},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": (1.0, 1.0, 1.0), "image_std": (1.0, 0.5, 2.0)},
    ],
)
def test_every_field_is_honoured(fields: dict[str, Any]) -> None:
    config = ImageProcessorConfig(**fields)
    image = noise(333, 250)
    assert np.array_equal(ImageProcessor(config)(image), reference(config, image).astype(np.float32))


@pytest.mark.parametrize("size", [(640, 480), (333, 501), (28, 28), (896, 896)])
def test_native_images_are_the_reference_without_the_rest_strip(size: tuple[int, int]) -> None:
    config = ImageProcessorConfig.default(224, native=True)
    image = noise(*size)
    result = ImageProcessor(config, native=NativeOptions(min_patches=1))(image)
    assert result.shape == (size[1] // 14 * 14, size[0] // 14 * 14, 3)
    assert np.array_equal(result, reference(config, image)[: result.shape[0], : result.shape[1]])


def test_a_config_written_by_transformers_is_read(tmp_path: Path) -> None:
    processor = pil_processors.CLIPImageProcessorPil(size=336, crop_size=336, resample=2)
    processor.save_pretrained(tmp_path)
    config = ImageProcessorConfig.from_dict(json.loads((tmp_path / "preprocessor_config.json").read_text()))
    assert (config.size, config.crop_size, config.resample) == (336, (336, 336), 2)
    assert json.loads(json.dumps(config.to_dict()))["size"] == {"shortest_edge": 336}


def test_fast_decoding_stays_near_the_exact_one() -> None:
    small = noise(40, 30).resize((2000, 1503), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=90)
    config = ImageProcessorConfig(do_rescale=False, do_normalize=False)
    exact, fast = (
        ImageProcessor(config, decode=DecodeOptions(decode=how))(stream.getvalue())
        for how in ("exact", "fast")
    )
    assert exact.shape == fast.shape == (224, 224, 3)
    assert decode_image(stream.getvalue(), DecodeOptions(decode="fast"), 224).size == (1000, 752)
    assert 0 < np.abs(exact - fast).mean() < 2  # of 255


def test_a_processor_saved_by_transformers_is_read_as_transformers_reads_it(
    tiny_pair: Path, tmp_path: Path
) -> None:
    """transformers 5 writes processor_config.json for a pair, and no preprocessor_config.json."""
    theirs = transformers.CLIPProcessor(
        transformers.CLIPImageProcessorPil(
            size={"shortest_edge": 61},
            crop_size={"height": 56, "width": 56},
            resample=2,
            image_mean=[0.1, 0.2, 0.3],
            image_std=[0.4, 0.5, 0.6],
        ),
        transformers.CLIPTokenizer.from_pretrained(tiny_pair),
    )
    folder = tmp_path / "pair"
    shutil.copytree(tiny_pair, folder)
    (folder / "preprocessor_config.json").unlink()
    theirs.save_pretrained(folder)
    assert (folder / "processor_config.json").is_file() and not (folder / "preprocessor_config.json").exists()
    for name, other in (("only", None), ("both", {"image_mean": [0.5] * 3, "size": 56, "crop_size": 56})):
        if other is not None:
            (folder / "preprocessor_config.json").write_text(json.dumps(other))
        image = np.random.default_rng(0).integers(0, 256, (131, 97, 3), dtype=np.uint8)
        again = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
        expected = np.moveaxis(np.asarray(again(image)["pixel_values"][0]), 0, -1)
        ours = load(folder)[1]
        assert np.array_equal(ours.image_processor(image), expected), name
        text = ["a cat", "two dogs on a beach"]
        ids = transformers.AutoTokenizer.from_pretrained(folder)(text, padding=True)["input_ids"]
        assert ours(text=text)["input_ids"].tolist() == ids


@pytest.mark.parametrize("kind", ["SiglipImageProcessorPil", "ViTImageProcessorPil", "BitImageProcessorPil"])
def test_processors_of_other_classes_are_read_as_transformers_reads_them(kind: str, tmp_path: Path) -> None:
    theirs = getattr(transformers, kind)()
    theirs.save_pretrained(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (331, 297, 3), dtype=np.uint8)
    expected = np.moveaxis(np.asarray(theirs(image)["pixel_values"][0]), 0, -1)
    settings = find_settings(tmp_path, Aimv2VisionConfig(image_size=224))
    assert settings.notes == ()
    assert np.array_equal(ImageProcessor(settings.config)(image), expected)
    name = kind.removesuffix("Pil")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": name}))
    bare = find_settings(tmp_path, Aimv2VisionConfig(image_size=224))
    assert np.array_equal(ImageProcessor(bare.config)(image), expected)
