"""The table of published checkpoints: exact counts, names, estimates."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from mlx_aimv2.errors import InputError
from mlx_aimv2.presets import BITS_AFFINE_4, BITS_FLOAT16, PRESETS, Preset, find, suggest

APPLE = [preset for preset in PRESETS if preset.repo.startswith("apple/")]
TIMM = [preset for preset in PRESETS if preset.repo.startswith("timm/")]


def count_weights(preset: Preset) -> int:
    """All weights of a checkpoint, counted tensor by tensor."""
    d, i, layers = preset.trunk.hidden_size, preset.trunk.intermediate_size, preset.trunk.num_hidden_layers
    patches = (preset.num_patches or 0) * d  # native resolution has no position table
    block = 4 * d * d + 3 * d * i + 2 * d
    vision = d * 3 * 14 * 14 + d + d + patches + layers * block + d
    if not preset.has_text:
        return vision
    head = d + 2 * d * d + d * d + d
    text = 49408 * 768 + 77 * 768 + 12 * (4 * 768 * 768 + 3 * 768 * 2048 + 2 * 768) + 768
    return vision + head + text + 768 * d + 768 * 768 + 1


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_parameters_follow_from_the_architecture(preset: Preset) -> None:
    assert preset.parameters == count_weights(preset)


@pytest.mark.parametrize("preset", APPLE, ids=lambda preset: preset.name)
def test_published_rows_pin_a_commit_and_are_found_by_every_name(preset: Preset) -> None:
    assert preset.revision is not None
    assert re.fullmatch("[0-9a-f]{40}", preset.revision)
    bare = preset.repo.removeprefix("apple/")
    for name in (
        preset.name,
        preset.repo,
        bare,
        bare.removeprefix("aimv2-"),
        preset.name.upper(),
        f" {bare} ",
    ):
        assert find(name) is preset


def test_there_are_sixteen_published_rows_and_fourteen_copies_by_timm() -> None:
    assert len(APPLE) == 16
    assert len({preset.revision for preset in APPLE}) == 16
    assert len(TIMM) == 14
    assert {preset.revision for preset in TIMM} == {None}


def test_no_name_stands_for_two_checkpoints() -> None:
    names = [alias for preset in PRESETS for alias in preset.aliases]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "repo"),
    [
        ("lit", "apple/aimv2-large-patch14-224-lit"),
        ("large-lit", "apple/aimv2-large-patch14-224-lit"),
        ("large-224-lit", "apple/aimv2-large-patch14-224-lit"),
        ("large-patch14-224-lit", "apple/aimv2-large-patch14-224-lit"),
        ("native", "apple/aimv2-large-patch14-native"),
        ("large-native", "apple/aimv2-large-patch14-native"),
        ("1b-448", "apple/aimv2-1B-patch14-448"),
        ("huge-336", "apple/aimv2-huge-patch14-336"),
        ("large-336-distilled", "apple/aimv2-large-patch14-336-distilled"),
        ("timm/aimv2_3b_patch14_448.apple_pt", "timm/aimv2_3b_patch14_448.apple_pt"),
        ("aimv2_large_patch14_224.apple_pt_dist", "timm/aimv2_large_patch14_224.apple_pt_dist"),
    ],
)
def test_aliases(name: str, repo: str) -> None:
    preset = find(name)
    assert preset is not None
    assert preset.repo == repo


@pytest.mark.parametrize("name", ["demo", "", "large", "clip", "large-512"])
def test_other_words_are_no_preset(name: str) -> None:
    assert find(name) is None


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("large224", "large-224"),
        ("litt", "lit"),
        ("apple/aimv2-huge-patch14-338", "huge-336"),
        ("demmo", "demo"),
    ],
)
def test_suggestions_for_misspelled_names(word: str, first: str) -> None:
    assert suggest(word)[0] == first


def test_no_suggestion_for_what_resembles_nothing() -> None:
    assert suggest("xyzzy") == []


def test_text_and_native_rows() -> None:
    lit, native, plain = find("lit"), find("native"), find("large-448")
    assert lit and native and plain
    assert [lit.has_text, native.has_text, plain.has_text] == [True, False, False]
    assert [lit.top1, native.top1, plain.top1] == [77.0, 87.3, 87.9]
    assert (native.image_size, native.num_patches) == (None, None)
    assert plain.num_patches == 1024


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_bytes_in_float_are_parameters_times_width(preset: Preset) -> None:
    assert preset.bytes_at(BITS_FLOAT16) == 2 * preset.parameters
    assert preset.bytes_at(32) == 4 * preset.parameters


def test_bytes_in_4_bit_keep_what_is_not_quantized() -> None:
    large, lit = find("large-224"), find("lit")
    assert large and lit
    linear = 24 * (4 * 1024**2 + 3 * 1024 * 2816)
    assert large.bytes_at(BITS_AFFINE_4) == linear * 9 // 16 + 2 * (large.parameters - linear)
    linear += 12 * (4 * 768**2 + 3 * 768 * 2048) + 49408 * 768
    assert lit.bytes_at(BITS_AFFINE_4) == linear * 9 // 16 + 2 * (lit.parameters - linear)


@pytest.mark.parametrize("bits", [0, -4, 65, float("nan")])
def test_impossible_bits_are_refused(bits: float) -> None:
    with pytest.raises(InputError, match=r"bits per weight must be above 0 and at most 64, not "):
        PRESETS[0].bytes_at(bits)


def test_the_table_loads_nothing_heavy() -> None:
    code = (
        "import sys, mlx_aimv2.presets; print({'mlx', 'numpy', 'PIL', 'huggingface_hub'} & set(sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
    )
