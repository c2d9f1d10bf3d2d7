"""`benchmarks/metal.py`: the kernels that Metal launches, counted from a traced graph."""

import random
import re
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(SCRIPTS))

from metal_graph import as_gpu, trace  # noqa: E402
from metal_kernels import Gpu, kernels_of  # noqa: E402
from metal_layout import VIEWS, Array, reshaped_strides, row_strides  # noqa: E402


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


def view(x, array, random):
    """A random view of ``x``, by MLX and by our rules."""
    kind, axis = random.choice(["Transpose", "Broadcast", "Split", "Reshape"]), random.randrange(x.ndim)
    if kind == "Reshape":
        shape = [x.shape[axis] // 2, 2, -1] if x.shape[axis] % 2 == 0 else [-1, x.shape[axis]]
        x = x.reshape(shape)
        strides = reshaped_strides(array, x.shape) or row_strides(x.shape)
        return x, Array(x.shape, 4, strides)
    if kind == "Split" and x.shape[axis] % 2 == 0:
        half = random.randrange(2)
        return mx.split(x, 2, axis)[half], VIEWS[kind](array, [(x.shape[axis] // 2,), axis])[half]
    if kind == "Broadcast":
        return mx.broadcast_to(x, (3, *x.shape)), VIEWS[kind](array, [(3, *x.shape)])[0]
    axes = random.sample(range(x.ndim), x.ndim)
    return x.transpose(axes), VIEWS["Transpose"](array, [axes])[0]


@pytest.mark.parametrize("seed", range(50))
def test_strides_are_those_of_mlx(seed):
    source, x, array = random.Random(seed), mx.zeros((2, 6, 4, 8)), Array((2, 6, 4, 8), 4, (192, 32, 8, 1))
    for _ in range(4):
        x, array = view(x, array, source)
        mx.eval(x)
        bytes_apart = zip(x.shape, memoryview(x).strides, array.strides, strict=True)
        assert all(size == 1 or real == 4 * ours for size, real, ours in bytes_apart)


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


def long_chain(x, y):
    x = x * y
    for function in (mx.cos, mx.exp, mx.sin, mx.abs) * 3:
        x = function(x)
    return x


@pytest.mark.parametrize("function", [
    lambda x, y: x * mx.sigmoid(x) * y,
    lambda x, y: (x.astype(mx.float32) + y.astype(mx.float32)).astype(mx.float16),
    lambda x, y: (mx.sigmoid(x) * y) @ y * x + y,
    lambda x, y: (x + y) + mx.softmax((x + y) * 2, axis=-1) * y,
    long_chain,
])  # fmt: skip
def test_compiling_fuses_what_mlx_fuses(function, tmp_path):
    inputs = halves(8, 8), halves(8, 8)
    mx.export_to_dot(str(tmp_path / "graph.dot"), mx.compile(function)(*inputs))
    graph = (tmp_path / "graph.dot").read_text()
    of_mlx = re.findall(r'label ="(?:Compiled)?(\w+)", shape=rectangle', graph)
    of_mlx = [{"Matmul": "product", "Max": "Reduce", "Sum": "Reduce"}.get(name, name) for name in of_mlx]
    kernels = names(count(lambda: mx.compile(function), *inputs))
    assert sorted(of_mlx) == sorted(name.removeprefix("compiled ").replace("+", "") for name in kernels)


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
    page = (SCRIPTS.parent / "docs" / "performance.md").read_text(encoding="utf-8")
    shown = {
        name: float(least)
        for name, least in re.findall(r"^\| (M[^(|]+) \(.*?\| ([\d.]+) \| \d+ \| ", page, re.M)
    }
    floors = {
        line[:10].strip(): float(line.partition("TFLOPS")[2].split()[0]) for line in lines if line[:1] == "M"
    }
    assert shown == pytest.approx(floors, abs=0.06)
    assert any("ScaledDotProductAttention" in line for line in lines)
