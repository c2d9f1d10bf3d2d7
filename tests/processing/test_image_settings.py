"""Where a checkpoint folder keeps its settings for images: which place counts, and what is said of it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.settings_files import TIMM, UNUSUAL, VISION, write_settings_files
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from mlx_aimv2.checkpoints.file_names import small_files
from mlx_aimv2.config import Aimv2VisionConfig
from mlx_aimv2.errors import ConfigError
from mlx_aimv2.processing.image_config import ImageProcessorConfig
from mlx_aimv2.processing.image_settings import CLASS_DEFAULTS, find_settings, processor_kind, write_settings

PLAIN = ImageProcessorConfig.default(56).to_dict() | {"image_processor_type": "CLIPImageProcessor"}


def found(
    folder: Path, config: Aimv2VisionConfig = VISION
) -> tuple[ImageProcessorConfig, str | None, tuple[str, ...]]:
    settings = find_settings(folder, config)
    return settings.config, settings.source, settings.notes


def test_an_entry_of_processor_config_goes_before_preprocessor_config(tmp_path: Path) -> None:
    write_settings_files(
        tmp_path, processor_config={"image_processor": UNUSUAL, "processor_class": "CLIPProcessor"}
    )
    config, source, notes = found(tmp_path)
    assert config == ImageProcessorConfig.from_dict(UNUSUAL)
    assert (source, notes) == ("processor_config.json (image_processor)", ())
    write_settings_files(tmp_path, preprocessor_config=PLAIN)
    assert found(tmp_path) == (config, source, notes)


@pytest.mark.parametrize(
    "other", [{}, {"processor_class": "CLIPProcessor"}, {"image_processor": None}], ids=str
)
def test_a_processor_config_without_the_entry_says_nothing_of_images(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    write_settings_files(tmp_path, processor_config=other, preprocessor_config=UNUSUAL)
    assert found(tmp_path)[1:] == ("preprocessor_config.json", ())


def test_settings_for_videos_are_no_settings_for_images(tmp_path: Path) -> None:
    write_settings_files(
        tmp_path, video_preprocessor_config=UNUSUAL, processor_config={"video_processor": UNUSUAL}
    )
    config, source, notes = found(tmp_path)
    assert (config, source) == (ImageProcessorConfig.default(56), None)
    assert notes == (
        f"{tmp_path} has no image settings: the published ones for 56 pixels are used"
        " (no preprocessor_config.json, no processor_config.json)",
    )


@pytest.mark.parametrize("entry", ["CLIPImageProcessor", [UNUSUAL], 3], ids=type)
def test_an_entry_that_is_no_object_is_refused(tmp_path: Path, entry: object) -> None:
    write_settings_files(tmp_path, processor_config={"image_processor": entry}, preprocessor_config=PLAIN)
    with pytest.raises(
        ConfigError, match=r"processor_config\.json: image_processor has to be an object, not a "
    ):
        find_settings(tmp_path, VISION)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", " is not valid JSON"),
        (b"{", " is not valid JSON"),
        (b"\xff", ", line 1, byte offset 0: not UTF-8"),
        (b"[" * 100_000, " is not valid JSON"),
        (b"[]", " must hold a JSON object, not list"),
        (b'{"rescale_factor": NaN}', ": rescale_factor is nan"),
        (b'{"rescale_factor": 1e999}', ": rescale_factor is inf"),
        (b'{"size": 0}', ": size is 0"),
    ],
)
def test_wrong_files_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        find_settings(tmp_path, VISION)
    assert str(caught.value).startswith(f"{path}{message}")


def test_a_wrong_value_is_named_with_its_file(tmp_path: Path) -> None:
    write_settings_files(tmp_path, processor_config={"image_processor": UNUSUAL | {"resample": 9}})
    with pytest.raises(
        ConfigError, match=r"processor_config\.json \(image_processor\): resample is 9, but has to be"
    ):
        find_settings(tmp_path, VISION)
    with pytest.raises(
        ConfigError, match=r"config\.json \(pretrained_cfg\): crop_mode is 'x', but has to be one of"
    ):
        find_settings(tmp_path, replace(VISION, extra={"pretrained_cfg": {"crop_mode": "x"}}))


@pytest.mark.parametrize(
    "extra", [{"pretrained_cfg": TIMM}, {"architecture": "aimv2_large_patch14_224", **TIMM}]
)
def test_timms_words_go_before_all_others(tmp_path: Path, extra: dict[str, Any]) -> None:
    write_settings_files(tmp_path, processor_config={"image_processor": PLAIN}, preprocessor_config=PLAIN)
    config, source, notes = found(tmp_path, replace(VISION, extra=extra))
    assert (config.size, config.crop_size, config.resample) == (62, (56, 56), 2)  # 56 / 0.9 = 62.2
    assert (config.image_mean, config.image_std) == ((0.1,) * 3, (0.7,) * 3)
    assert (source, notes) == ("config.json (pretrained_cfg)", ())


def test_timms_defaults_are_told(tmp_path: Path) -> None:
    words = {"input_size": [3, 224, 224], "interpolation": "bicubic"}
    _, _, notes = found(tmp_path, replace(VISION, extra={"pretrained_cfg": words}))
    start = f"{tmp_path}/config.json (pretrained_cfg)"
    assert notes == (
        f"{start} has no crop_pct, mean, std: timm's defaults are used",
        f"{start} has input_size [3, 224, 224]: the model takes 56 x 56 pixels",
    )


def test_timms_model_args_say_the_size_before_its_words_do(tmp_path: Path) -> None:
    words = TIMM | {"input_size": [3, 224, 224]}
    for size, told in ((56, 0), ([56, 56], 0), (84, 1)):
        extra = {"pretrained_cfg": words, "model_args": {"img_size": size}}
        config, _, notes = found(tmp_path, replace(VISION, extra=extra))
        assert (config.crop_size, len(notes)) == ((56, 56), told)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "shortest_edge"]), inner)
    ),
    max_leaves=6,
)


@limits(max_examples=50)
@given(st.dictionaries(st.sampled_from([*TIMM, "crop_mode"]), JSON), JSON)
def test_whatever_timm_says_it_is_read_or_refused(words: dict[str, Any], arguments: object) -> None:
    extra = {"pretrained_cfg": words, "model_args": arguments}
    try:
        settings = find_settings(Path("folder"), replace(VISION, extra=extra))
    except ConfigError as error:
        assert str(error).startswith("folder/config.json (pretrained_cfg): ")
    else:
        assert settings.config.crop_size == (56, 56)


@limits(max_examples=50)
@given(JSON, st.dictionaries(st.sampled_from(list(UNUSUAL)), JSON))
def test_whatever_a_processor_says_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, entry: object, keys: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("processor")
    for data in ({"image_processor": entry}, {"image_processor": keys}):
        write_settings_files(folder, processor_config=data)
        with contextlib.suppress(ConfigError):
            find_settings(folder, VISION)


def test_defaults_for_missing_keys_are_told(tmp_path: Path) -> None:
    write_settings_files(tmp_path, preprocessor_config={"crop_size": 56, "size": 56, "image_std": None})
    config, _, notes = found(tmp_path)
    assert config == ImageProcessorConfig(size=56, crop_size=(56, 56))
    assert notes == (
        f"{tmp_path}/preprocessor_config.json has no image_mean, image_std: the defaults of CLIPImageProcessor"
        " are used",
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("CLIPImageProcessor", "CLIPImageProcessor"),
        ("CLIPImageProcessorFast", "CLIPImageProcessor"),
        ("CLIPImageProcessorPil", "CLIPImageProcessor"),
        ("CLIPFeatureExtractor", "CLIPImageProcessor"),
        ("SiglipImageProcessorFast", "SiglipImageProcessor"),
    ],
)
def test_a_class_goes_by_many_names(name: str, kind: str) -> None:
    assert processor_kind({"image_processor_type": name}) == (kind, True)
    assert processor_kind({"feature_extractor_type": name}) == (kind, True)
    assert processor_kind({}) == ("CLIPImageProcessor", True)


def test_a_class_has_its_own_defaults(tmp_path: Path) -> None:
    write_settings_files(tmp_path, preprocessor_config={"image_processor_type": "ViTImageProcessor"})
    config, _, notes = found(tmp_path, replace(VISION, image_size=224))
    assert (config.size, config.resample, config.do_center_crop) == ((224, 224), 2, False)
    assert config.image_mean == config.image_std == (0.5, 0.5, 0.5)
    assert notes[0].endswith("has no size, image_mean, image_std: the defaults of ViTImageProcessor are used")


def test_a_class_that_is_not_known_is_told(tmp_path: Path) -> None:
    write_settings_files(
        tmp_path, preprocessor_config=UNUSUAL | {"image_processor_type": "OtherImageProcessor"}
    )
    assert found(tmp_path)[2] == (
        f"{tmp_path}/preprocessor_config.json names OtherImageProcessor, which is not known here: it is read as"
        " CLIPImageProcessor",
    )
    write_settings_files(tmp_path, preprocessor_config={"image_processor_type": ["x"]})
    with pytest.raises(ConfigError, match=r"image_processor_type is \['x'\], but has to be a name"):
        find_settings(tmp_path, VISION)


# --- what is written


def test_files_that_say_so_already_stay(tmp_path: Path) -> None:
    write_settings_files(
        tmp_path, preprocessor_config=UNUSUAL, processor_config={"image_processor": UNUSUAL, "more": 1}
    )
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_settings(tmp_path, ImageProcessorConfig.from_dict(UNUSUAL))
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_files_that_say_otherwise_are_mended(tmp_path: Path) -> None:
    write_settings_files(
        tmp_path, preprocessor_config=PLAIN, processor_config={"image_processor": PLAIN, "more": 1}
    )
    settings = ImageProcessorConfig.from_dict(UNUSUAL | {"crop_rounding": "even", "crop_fill": [1, 2, 3]})
    write_settings(tmp_path, settings)
    assert find_settings(tmp_path, VISION).config.same_pixels(settings)
    assert json.loads((tmp_path / "processor_config.json").read_text()) == {"more": 1}


def test_the_file_is_downloaded_and_uploaded() -> None:
    assert small_files(["processor_config.json", "video_preprocessor_config.json"]) == [
        "processor_config.json"
    ]


def test_every_class_has_defaults_that_can_be_read() -> None:
    for defaults in CLASS_DEFAULTS.values():
        ImageProcessorConfig.from_dict(defaults)
