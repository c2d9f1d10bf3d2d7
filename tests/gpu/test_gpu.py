"""What only a GPU does: float16 by default, MLX's fused kernels, compiled activations. Skipped without one."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlx_aimv2 import Embedder, ZeroShotClassifier, load
from mlx_aimv2.backend.device import compute_dtype, gpu_available
from mlx_aimv2.events import StepDone, ignore
from mlx_aimv2.finetuning.options import FinetuneOptions
from mlx_aimv2.finetuning.run import finetune
from mlx_aimv2.models.classifier import Classifier

import mlx.core as mx  # isort: skip

pytestmark = pytest.mark.skipif(not gpu_available(), reason="no GPU")


@pytest.fixture(autouse=True)
def on_gpu():
    mx.set_default_device(mx.gpu)
    yield
    mx.set_default_device(mx.cpu)


def noise():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (h, w, 3), dtype=np.uint8) for h, w in ((168, 168), (210, 140), (168, 168))]


def test_half_precision_is_the_default():
    assert compute_dtype(None) == mx.float16


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["tiny_pair", "tiny_vision", "tiny_native"])
def test_a_gpu_gives_what_a_cpu_gives(request, kind, dtype):
    folder = request.getfixturevalue(kind)
    tolerance = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 6e-2}[dtype]
    found = Embedder(*load(folder, dtype=dtype)).images(noise())
    mx.set_default_device(mx.cpu)
    expected = Embedder(*load(folder, dtype="float32")).images(noise())
    np.testing.assert_allclose(found, expected, atol=tolerance)


def test_texts_and_labels(tiny_pair):
    classifier = ZeroShotClassifier(*load(tiny_pair), labels=["a dog", "a cat"])
    found = dict(classifier(noise()[0])[0])
    mx.set_default_device(mx.cpu)
    expected = dict(ZeroShotClassifier(*load(tiny_pair), labels=["a dog", "a cat"])(noise()[0])[0])
    assert found == pytest.approx(expected, abs=2e-2)


class Stopped(Exception):
    """A run is cut off."""


def two_colours(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, colour in {"blue": (40, 60, 200), "red": (210, 50, 40)}.items():
        (root / name).mkdir(parents=True)
        for number in range(8):
            noisy = np.array(colour) + rng.normal(0, 40, (60, 60, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("method", "dtype", "rate"),
    [("lora", "bfloat16", 3e-3), ("dora", "bfloat16", 3e-3), ("full", "auto", 3e-4)],
)
def test_training_lowers_the_loss_goes_on_and_is_loaded(tmp_path, tiny_vision, method, dtype, rate):
    given = {
        "data": str(two_colours(tmp_path / "data")), "model": str(tiny_vision), "fine_tune_type": method,
        "adapter_path": str(tmp_path / "a"), "dtype": dtype, "learning_rate": rate, "epochs": 5, "rank": 4,
        "batch_size": 4, "dropout": 0.1, "grad_checkpoint": True, "save_every": 2,
    }  # fmt: skip
    losses = {}

    def note(event, until=None):
        if isinstance(event, StepDone):
            losses[event.step] = event.loss
            if event.step == until:
                raise Stopped

    with pytest.raises(Stopped):
        finetune(FinetuneOptions(**given), lambda event: note(event, until=7))
    finished = finetune(FinetuneOptions(**given, resume=True), note)
    values = [losses[step] for step in sorted(losses)]
    assert len(values) == finished.trained.steps and np.isfinite(values).all()
    assert np.mean(values[-4:]) < 0.85 * np.mean(values[:4])
    model, processor = load(tiny_vision, adapter_path=finished.folder, on_event=ignore)
    assert isinstance(model, Classifier)
    pixels = processor(images=sorted((tmp_path / "data" / "red").iterdir()))["pixel_values"]
    assert (np.array(mx.argmax(model(pixels), axis=1)) == 1).mean() > 0.7
