"""`benchmarks/metal.py`: the kernels that Metal launches, counted from a traced graph."""

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(SCRIPTS))

from metal_graph import as_gpu, trace  # noqa: E402
from metal_kernels import Gpu, kernels_of  # noqa: E402


def count(make, *inputs, gpu=None):
    """The kernels of the function that ``make`` returns, which may compile."""
    with as_gpu() as marks:
        return kernels_of(trace(make(), *inputs, marks=marks), gpu)


def names(kernels):
    return [kernel.name for kernel in kernels]


def halves(*shape):
    """Zeros that are evaluated, as weights are: otherwise they would be kernels."""
    zeros = mx.zeros(shape, dtype=mx.float16)
    mx.eval(zeros)
    return zeros


def test_a_product_counts_its_bytes_and_flops():
    weight = halves(32, 64)
    (kernel,) = count(lambda: lambda x: x @ weight.T, halves(2, 3, 64))
    assert (kernel.weights, kernel.read, kernel.written) == (2 * 32 * 64, 2 * 6 * 64, 2 * 6 * 32)
    assert kernel.flops == 2 * 6 * 32 * 64


@pytest.mark.parametrize(("columns", "gpu", "launches"), [
    (1024, Gpu(), 2), (3072, Gpu(), 1), (2048, Gpu(split_tiles=2048), 1), (1024, Gpu(is_neural=True), 1),
])  # fmt: skip
def test_a_small_product_is_split(columns, gpu, launches):
    weight = halves(1024, columns)
    assert len(count(lambda: lambda x: x @ weight, halves(256, 1024), gpu=gpu)) == launches


def test_a_bias_is_part_of_the_product():
    weight, bias = halves(64, 64), halves(64)
    kernels = count(lambda: lambda x: mx.addmm(bias, x, weight), halves(600, 64))
    assert names(kernels) == ["product"] and kernels[0].weights == 2 * (64 * 64 + 64)


def test_a_quantized_product_reads_packed_weights():
    packed, scales, biases = mx.quantize(halves(2048, 1024), group_size=64, bits=4)
    mx.eval(packed, scales, biases)
    kernels = count(
        lambda: lambda x: mx.quantized_matmul(x, packed, scales, biases, group_size=64, bits=4),
        halves(1024, 1024),
    )
    assert names(kernels) == ["quantized product"]
    assert kernels[0].weights == 2048 * 1024 // 2 + 2 * 2 * 2048 * 1024 // 64


def test_rms_norm_is_one_kernel():
    weight = halves(64)
    (kernel,) = count(lambda: lambda x: mx.fast.rms_norm(x, weight, 1e-5), halves(2, 3, 64))
    assert kernel.name == "RMSNorm" and kernel.weights == 128 and kernel.read == kernel.written == 2 * 6 * 64


def attention_of_one_product(x):
    """Attention of heads that are views of one array."""
    q, k, v = (part.reshape(2, 16, 4, 64).swapaxes(1, 2) for part in mx.split(x, 3, axis=-1))
    mixed = mx.fast.scaled_dot_product_attention(q, k, v, scale=1.0)
    return mixed.swapaxes(1, 2).reshape(2, 16, 256)


def test_attention_takes_views_and_its_heads_merge_without_a_copy():
    (kernel,) = count(lambda: attention_of_one_product, halves(2, 16, 768))
    assert kernel.name == "ScaledDotProductAttention"
    assert (kernel.read, kernel.written) == (2 * 2 * 16 * 768, 2 * 2 * 16 * 256)
    assert kernel.flops == 4 * 2 * 4 * 16 * 16 * 64


def test_attention_of_one_query_copies_keys_and_values_of_a_batch():
    def pool(x):
        heads = x.reshape(2, 16, 4, 64).swapaxes(1, 2)
        return mx.fast.scaled_dot_product_attention(halves(2, 4, 1, 64), heads, heads + 0, scale=1.0)

    assert names(count(lambda: pool, halves(2, 16, 256))).count("copy") == 2


def test_a_reshape_copies_only_what_lies_across():
    assert count(lambda: lambda x: x.reshape(2, 3, 64).swapaxes(0, 1)[:, :1, ::2], halves(6, 64)) == []
    assert names(count(lambda: lambda x: x.T.reshape(6, 64), halves(6, 64))) == ["copy"]
    assert names(count(lambda: lambda x: mx.contiguous(x.T), halves(6, 64))) == ["copy"]


def test_a_compiled_function_is_one_kernel():
    def gated():
        return mx.compile(lambda gate, up: gate * mx.sigmoid(gate) * up)

    def plain():
        return lambda gate, up: gate * mx.sigmoid(gate) * up

    inputs = halves(8, 16), halves(8, 16)
    (kernel,) = count(gated, *inputs)
    assert kernel.read == 2 * 2 * 8 * 16 and kernel.written == 2 * 8 * 16
    assert names(count(plain, *inputs)) == ["Sigmoid", "Multiply", "Multiply"]


def test_compiling_fuses_around_a_norm_and_not_across_it():
    weight = halves(16)

    def layer():
        inner = mx.compile(lambda x: x * mx.sigmoid(x))

        def run(x, y):
            z = x + y
            return z + inner(mx.fast.rms_norm(z, weight, 1e-5))

        return mx.compile(run)

    kernels = count(layer, halves(8, 16), halves(8, 16))
    assert names(kernels) == ["Add", "RMSNorm", "compiled Sigmoid+Multiply+Add"]


def test_an_unknown_primitive_is_an_error():
    with pytest.raises(ValueError, match="how Metal computes Sort is not known"):
        count(lambda: mx.sort, halves(8))


def test_heads_without_a_fused_kernel_are_an_error():
    def attend(x):
        return mx.fast.scaled_dot_product_attention(x, x, x, scale=1.0)

    with pytest.raises(ValueError, match="no fused attention for heads of 40"):
        count(lambda: attend, halves(1, 2, 16, 40))


def test_the_script_counts_the_model():
    command = [sys.executable, SCRIPTS / "metal.py", "--batch", "1", "--kernels"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    products = [
        line.split()[-1]
        for line in lines
        if line.startswith(("float16  x1", "4-bit    x1")) and "model" in line
    ]
    assert products == ["164.6", "164.6"]  # 2 x 256 tokens x 0.31 billion weights, and the attention
    assert any(line.startswith("M5 Max") for line in lines)
    assert any("ScaledDotProductAttention" in line for line in lines)
