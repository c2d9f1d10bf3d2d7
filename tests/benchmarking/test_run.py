"""All measurements together."""

from __future__ import annotations

import pytest
from PIL import Image

from mlx_aimv2.benchmarking import run
from mlx_aimv2.benchmarking.options import BenchOptions
from mlx_aimv2.benchmarking.run import Plan
from mlx_aimv2.errors import InputError


@pytest.fixture(autouse=True)
def few_runs(monkeypatch):
    monkeypatch.setattr("mlx_aimv2.benchmarking.forward.MOST_RUNS", 2)
    monkeypatch.setattr("mlx_aimv2.benchmarking.decoding.MOST", 4)


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "0-broken.jpg").write_bytes(b"no image")
    Image.effect_noise((300, 200), 50).convert("RGB").save(tmp_path / "1.jpg")
    return str(tmp_path)


def test_model_and_decoding_are_measured(checkpoint, photos):
    options = BenchOptions(batch_sizes=("1,2",), images=(photos,), seconds=60)
    plan, events = Plan.of(str(checkpoint("fixed")), options), []
    report = plan.report
    for result in plan.results(events.append):
        report = report.with_result(result)
    assert [cell.setting.batch_size for cell in report.cells if cell.timing] == [1, 2]
    assert [decoding.mode for decoding in report.decodings] == ["fast", "exact"]
    assert (report.photos, report.image_size) == ("the images of --images", (56, 56))
    assert [event.source.rpartition("/")[2] for event in events] == ["0-broken.jpg"]
    assert len(plan) == 4 and report.line


def test_a_native_model_is_measured_at_the_size_of_the_images(checkpoint, photos):
    native = str(checkpoint("native"))
    assert Plan.of(native, BenchOptions(images=(photos,))).report.image_size == (196, 294)
    few = BenchOptions(images=(photos,), max_patches=24)
    height, width = Plan.of(native, few).report.image_size
    assert height // 14 * (width // 14) <= 24


def test_the_drawn_photo_is_used_without_images(checkpoint, monkeypatch):
    monkeypatch.setattr(run, "find_photos", lambda names: [Image.new("RGB", (80, 60))])
    assert Plan.of(str(checkpoint("fixed")), BenchOptions()).report.photos == "a drawn photo of 12 megapixels"


def test_images_that_are_all_broken_are_refused(checkpoint, photos):
    options = BenchOptions(images=(f"{photos}/0-broken.jpg",))
    with pytest.raises(InputError, match=r"no image can be decoded: .*0-broken\.jpg: not an image"):
        Plan.of(str(checkpoint("fixed")), options)
