"""The published checkpoints against numbers published for them; `make golden` runs these, and needs the Hub.

The image is COCO val2017 000000039769. Sources of the numbers: the tests and pages of transformers for AIMv2.
The causal text logits differ from transformers' own, whose text tower looks in both directions by default.
"""

import hashlib
import urllib.request

import numpy as np
import pytest

from mlx_aimv2 import load
from mlx_aimv2.presets import find

pytestmark = pytest.mark.network

URL = "http://images.cocodataset.org/val2017/000000039769.jpg"
SHA256 = "dea9e7ef97386345f7cff32f9055da4982da5471c48d575146c796ab4563b04e"

LARGE_PILLOW = [[0.0509, 0.0806, -0.0989], [2.7847, -2.5148, -0.3327], [2.8176, -2.4086, -0.2774]]
LARGE_FAST = [
    [0.0510, 0.0806, -0.0990, -0.0154],
    [2.7850, -2.5143, -0.3320, 2.4196],
    [2.8179, -2.4089, -0.2770, 2.3218],
    [2.7641, -2.4114, -0.3684, 2.2998],
    [2.7972, -2.3180, -0.4490, 2.2302],
    [2.8584, -2.5322, -0.2302, 2.4936],
    [-2.7849, 2.4121, 1.3670, -1.5514],
]
NATIVE = [
    [-1.3342, 0.3720, 0.0963, 0.4159],
    [-1.5328, 0.4677, 0.0936, 0.4321],
    [-0.3775, -0.2758, -0.0803, -0.5367],
    [-1.3877, 0.5561, -1.9064, -1.1766],
    [-0.5148, 0.0108, -0.4515, -0.6402],
    [-0.3400, -0.1711, -0.1855, -0.4219],
    [-1.2877, -0.0585, -0.1646, 0.7420],
]
CAUSAL_LOGITS = [[34.2415, 24.6724]]
PIXELS = {  # preset -> mean and standard deviation after normalization
    "native": (0.251181, 1.025105),
    "large-224": (0.246321, 1.000691),
    "large-336": (0.246644, 1.008516),
    "large-448": (0.246579, 1.014527),
}
ERAS = {  # how a published checkpoint can be had -> its revision (None: pinned in the presets) and weight file
    "today": ("main", None),
    "original": (None, None),
    "apple-mlx": (None, "mlx_model.safetensors"),
}


@pytest.fixture(scope="session")
def cats(tmp_path_factory):
    """The image, downloaded once and checked."""
    path = tmp_path_factory.mktemp("coco") / "cats.jpg"
    with urllib.request.urlopen(URL, timeout=60) as answer:
        path.write_bytes(answer.read())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
    return path


def load_era(name, era):
    from mlx_aimv2 import LoadOptions

    preset = find(name)
    revision, weights = ERAS[era]
    return load(
        preset.repo,
        dtype="float32",
        revision=revision or preset.revision,
        options=LoadOptions(weights=weights),
    )


@pytest.mark.parametrize("era", ERAS)
def test_large_224(cats, era):
    model, processor = load_era("large-224", era)
    tokens = np.array(model(**processor(images=cats)).last_hidden_state[0])
    np.testing.assert_allclose(tokens[:3, :3], LARGE_PILLOW, atol=1e-4)
    np.testing.assert_allclose(tokens[:7, :4], LARGE_FAST, atol=1e-3)


@pytest.mark.parametrize("era", ERAS)
def test_native(cats, era):
    model, processor = load_era("native", era)
    tokens = np.array(model(**processor(images=cats)).last_hidden_state)
    assert tokens.shape == (1, 1530, 1024)
    np.testing.assert_allclose(tokens[0, :7, :4], NATIVE, atol=1e-3)


@pytest.mark.parametrize("era", ERAS)
def test_lit_is_causal(cats, era):
    model, processor = load_era("lit", era)
    inputs = processor(images=cats, text=["a photo of a cat", "a photo of a dog"])
    np.testing.assert_allclose(np.array(model(**inputs).logits_per_image), CAUSAL_LOGITS, atol=1e-2)


@pytest.mark.parametrize("name", PIXELS)
def test_pixels(cats, name):
    from mlx_aimv2.processing.image import ImageProcessor, ImageProcessorConfig, NativeOptions

    preset = find(name)
    settings = ImageProcessorConfig.default(preset.image_size or 224, preset.image_size is None)
    # The published native numbers are of all 640 x 480 pixels: patches of 2 leave no strip to drop.
    whole = ImageProcessor(settings, patch_size=2, native=NativeOptions(min_patches=1, max_patches=1_000_000))
    pixels = whole(cats)
    mean, deviation = PIXELS[name]
    assert pixels.mean() == pytest.approx(mean, abs=1e-5)
    assert pixels.std() == pytest.approx(deviation, abs=1e-5)
