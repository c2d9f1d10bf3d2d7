"""Projections of one input as one product, forced on a CPU."""

import copy
import ctypes

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_aimv2 import Aimv2VisionConfig, Aimv2VisionModel
from mlx_aimv2.adapters.attach import AdapterConfig, attach
from mlx_aimv2.backend import device
from mlx_aimv2.models import joint_product
from mlx_aimv2.models.joint_product import join_projections
from mlx_aimv2.models.layers import Attention, GatedMLP

DIM, INNER = 64, 96


def config(bias=False):
    return Aimv2VisionConfig(
        hidden_size=DIM,
        intermediate_size=INNER,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        qkv_bias=bias,
        mlp_bias=bias,
        use_head=False,
    )


@pytest.fixture(autouse=True)
def metal(monkeypatch):
    monkeypatch.setattr(joint_product, "on_metal", lambda: True)


@pytest.fixture
def x():
    return mx.random.normal((2, 5, DIM), key=mx.random.key(1))


def make(kind=Attention, bias=False, bits=None, dtype=mx.float32):
    mx.random.seed(0)
    module = kind(config(bias))
    module.set_dtype(dtype)
    if bits:
        nn.quantize(module, bits=bits, group_size=32)
    if bias:
        module.update({module.INPUTS[0]: {"bias": mx.ones_like(module[module.INPUTS[0]].bias)}})
    module.eval()
    return module


def joined(*arguments, **options):
    module = make(*arguments, **options)
    module.join()
    assert module.joint is not None
    mx.eval(module.parameters())
    return module


def separate(module, x):
    return [module[name](x) for name in module.INPUTS]


def address(array):
    return ctypes.addressof(ctypes.c_char.from_buffer(array))


@pytest.mark.parametrize("kind", [Attention, GatedMLP])
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_the_joint_product_equals_separate_ones(x, kind, dtype, bits, bias):
    options = {"kind": kind, "dtype": dtype, "bits": bits, "bias": bias}
    module, x = joined(**options), x.astype(dtype)
    results = module.project_inputs(x)
    assert module.joint is not None
    for y, expected in zip(results, separate(make(**options), x), strict=True):
        assert y.dtype == expected.dtype
        assert mx.allclose(y, expected, rtol=1e-5, atol=1e-5 if dtype == mx.float32 else 1e-2)


@pytest.mark.parametrize("bits", [None, 4])
def test_names_and_values_of_parameters_stay(bits):
    before, after = make(bias=True, bits=bits), joined(bias=True, bits=bits)
    assert before.parameters().keys() == after.parameters().keys()
    for name in before.INPUTS:
        assert before[name].keys() == after[name].keys()
        assert all(mx.array_equal(before[name][key], after[name][key]) for key in before[name])


@pytest.mark.parametrize("bits", [None, 4])
def test_the_weights_are_in_memory_once(bits):
    module = joined(bits=bits)
    for key, array in module.joint.linear.items():
        starts = [address(module[name][key]) for name in module.INPUTS]
        assert starts == [address(array) + number * array.nbytes // 3 for number in range(3)]


def double_in_place(module):
    module.k_proj.weight *= 2


def set_in_place(module):
    module.v_proj.weight[0] = 1.0


def replace(module):
    module.q_proj.weight = module.q_proj.weight + 1


def load_weights(module):
    module.load_weights([("v_proj.weight", mx.ones((DIM, DIM)))], strict=False)


def quantize(module):
    nn.quantize(module, group_size=32)


def add_a_bias(module):
    module.q_proj.bias = mx.ones(DIM)


CHANGES = [double_in_place, set_in_place, replace, load_weights, quantize, add_a_bias]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("has_run", [False, True])
def test_changed_weights_are_used(x, change, has_run):
    module, expected = joined(), make()
    if has_run:
        mx.eval(module.project_inputs(x))
    change(module)
    change(expected)
    for y, z in zip(module.project_inputs(x), separate(expected, x), strict=True):
        assert mx.allclose(y, z, rtol=1e-5, atol=1e-5)
    assert module.joint is None  # the joined array is freed


def test_a_change_before_the_weights_are_evaluated_is_seen(x):
    module, expected = make(), make()
    module.join()
    double_in_place(module)
    double_in_place(expected)
    for y, z in zip(module.project_inputs(x), separate(expected, x), strict=True):
        assert mx.allclose(y, z, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_separate_products(x):
    def loss(module):
        return sum(mx.square(y).sum() for y in module.project_inputs(x))

    gradients = [nn.value_and_grad(module, loss)(module)[1] for module in (joined(), make())]
    for name in Attention.INPUTS:
        a, b = (gradient[name]["weight"] for gradient in gradients)
        assert mx.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_frozen_weights_stay_joined_for_gradients_of_the_input(x):
    module, expected = joined(), make()

    def loss(module, x):
        return sum(mx.square(y).sum() for y in module.project_inputs(x))

    a, b = (mx.grad(lambda x, m=m: loss(m, x))(x) for m in (module, expected))
    assert mx.allclose(a, b, rtol=1e-4, atol=1e-4) and module.joint is not None


def test_a_copy_of_the_module_has_weights_of_its_own(x):
    module = joined()
    other = copy.deepcopy(module)
    double_in_place(other)
    expected = make()
    double_in_place(expected)
    for a, b in ((module, make()), (other, expected)):
        for y, z in zip(a.project_inputs(x), separate(b, x), strict=True):
            assert mx.allclose(y, z, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("targets", [("q", "v"), ("q", "k", "v", "gate", "up")])
def test_adapters_are_added_to_the_joint_product(x, bits, kind, targets):
    outputs = []
    for joins in (False, True):
        mx.random.seed(3)
        model = Aimv2VisionModel(config())
        if bits:
            nn.quantize(model, bits=bits, group_size=32)
        if joins:
            join_projections(model)
        attach(model, AdapterConfig(type=kind, rank=4, target_modules=targets))
        layer = model.encoder.layers[0]
        for module in (layer.attention, layer.ffn):
            for name in module.INPUTS:
                if hasattr(module[name], "lora_b"):
                    module[name].lora_b = mx.ones_like(module[name].lora_b) / 8
        model.eval()
        outputs.append(layer(x)[0])
        assert (layer.attention.joint is not None) == joins
    assert mx.allclose(*outputs, rtol=1e-5, atol=1e-5)


def test_projections_that_differ_are_not_joined():
    module = make()
    module.q_proj = module.q_proj.to_quantized(group_size=32)
    module.join()
    assert module.joint is None


@pytest.mark.parametrize("metal", [False, True])
def test_models_are_joined_on_metal_only(monkeypatch, metal):
    monkeypatch.setattr(joint_product, "on_metal", lambda: metal)
    model = Aimv2VisionModel(config())
    join_projections(model)
    modules = [m for layer in model.encoder.layers for m in (layer.attention, layer.ffn)]
    assert [m.joint is not None for m in modules] == [metal] * 4


@pytest.mark.parametrize(("cpu", "metal"), [(True, True), (False, True), (False, False)])
def test_metal_is_a_gpu_of_apple(monkeypatch, cpu, metal):
    monkeypatch.setattr(device, "on_cpu", lambda: cpu)
    monkeypatch.setattr(mx.metal, "is_available", lambda: metal)
    assert device.on_metal() == (metal and not cpu)
