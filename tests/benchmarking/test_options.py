"""What is measured by default, and what is refused."""

from __future__ import annotations

import pytest

from mlx_aimv2.benchmarking.options import BenchOptions, Setting
from mlx_aimv2.errors import InputError


def test_a_cpu_measures_plain_float32():
    assert BenchOptions().settings(on_cpu=True) == [Setting("float32", None, size) for size in (1, 2, 4, 8)]


def test_a_gpu_measures_half_precision_and_quantized_weights():
    settings = BenchOptions().settings(on_cpu=False)
    assert len(settings) == len(set(settings)) == 18
    assert settings[:4] == [
        Setting("float16", None, 1),
        Setting("float16", None, 8),
        Setting("float16", None, 32),
        Setting("float16", 8, 1),
    ]
    assert settings[-1] == Setting("bfloat16", 4, 32)


def test_what_is_asked_for_is_measured_on_every_device():
    options = BenchOptions(dtypes=("bfloat16",), bits=("4, none",), batch_sizes=("32,1", "8", "8"))
    expected = [Setting("bfloat16", bits, size) for bits in (4, None) for size in (1, 8, 32)]
    assert options.settings(on_cpu=True) == options.settings(on_cpu=False) == expected


def test_a_setting_has_a_name():
    assert str(Setting("float16", 4, 8)) == "float16, 4-bit, batch 8"
    assert str(Setting("float32", None, 1)) == "float32, batch 1"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dtypes": ("float64",)}, "--dtypes 'float64' is not one of float32, float16, bfloat16"),
        ({"bits": ("7",)}, "--bits '7' is not one of none, 8, 6, 5, 4, 3, 2"),
        ({"batch_sizes": ("0",)}, "--batch-sizes '0' is not a whole number from 1 to 4096"),
        ({"batch_sizes": ("1,,2",)}, "--batch-sizes '1,,2' has an empty value"),
        ({"dtypes": ("",)}, "--dtypes '' has an empty value"),
        ({"batch_sizes": ("1,two",)}, "--batch-sizes 'two' is not a whole number from 1 to 4096"),
        ({"seconds": 0.0}, "--seconds must be more than 0, not 0.0"),
        ({"max_patches": 0}, "max_patches is 0, but has to be a whole number of at least 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_other_values_are_refused(values, message):
    with pytest.raises(InputError) as raised:
        BenchOptions(**values)
    assert str(raised.value) == message
