"""What many tests share: small models of every kind, and checkpoints of them in every layout."""

from __future__ import annotations

import signal
from collections import namedtuple
from dataclasses import replace

import pytest
from drawn_world.untrained import VOCABULARY, random_tensors, write_checkpoint
from hypothesis import settings

from mlx_aimv2 import Aimv2Config, Aimv2TextConfig, Aimv2VisionConfig
from mlx_aimv2.checkpoints.layouts import LAYOUTS

pytest_plugins = ["helpers.finetuning_fixtures", "helpers.model_fixtures", "helpers.shades"]

for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if (
        signal.getsignal(number) is signal.SIG_IGN
    ):  # as in the background of a shell; tests send these signals
        signal.signal(number, handler)

settings.register_profile("no deadline", deadline=None)  # a machine that is busy is no failure
settings.load_profile("no deadline")

VISION = Aimv2VisionConfig(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=56,
    use_head=False,
)
TEXT = Aimv2TextConfig(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=2,
    eos_token_id=VOCABULARY - 1,
)
VARIANTS = {
    "fixed": VISION,
    "native": replace(VISION, is_native=True),
    "head": replace(VISION, use_head=True),
    "biases": replace(VISION, use_head=True, qkv_bias=True, mlp_bias=True),
    "odd-heads": replace(VISION, hidden_size=48, intermediate_size=80, num_attention_heads=3),
    "patch-16": replace(VISION, patch_size=16, image_size=64),
    "lit": Aimv2Config(replace(VISION, use_head=True), TEXT, projection_dim=32),
}
FOR_TIMM = ("fixed", "odd-heads", "patch-16")  # it has no place for a head or a text encoder, nor for native
COMBINATIONS = [(v, x) for v in VARIANTS for x in LAYOUTS if x != "timm" or v in FOR_TIMM]

Stored = namedtuple("Stored", "variant layout config folder")


@pytest.fixture(scope="session", autouse=True)
def on_the_cpu():
    """Every machine computes alike: a GPU would choose float16 and other orders of summing."""
    import mlx.core as mx

    mx.set_default_device(mx.cpu)


@pytest.fixture(scope="session")
def variants():
    """Every small configuration by its name."""
    return VARIANTS


@pytest.fixture(params=VARIANTS)
def config(request):
    """Each small configuration in turn."""
    return VARIANTS[request.param]


@pytest.fixture(scope="session")
def canonical():
    """Gives the canonical tensors of a configuration, the same ones that its checkpoints hold."""
    return random_tensors


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Gives the folder of a small checkpoint, which is written once; tests must not change it."""
    root, written = tmp_path_factory.mktemp("checkpoints"), {}

    def write(variant, layout="apple", dtype="float32"):
        import mlx.core as mx

        key = f"{variant}-{layout}-{dtype}"
        if key not in written:
            written[key] = write_checkpoint(root / key, VARIANTS[variant], layout, getattr(mx, dtype))
        return written[key]

    return write


@pytest.fixture(params=COMBINATIONS, ids="-".join)
def stored(request, checkpoint):
    """A checkpoint of each configuration in each layout that can hold it."""
    variant, layout = request.param
    return Stored(variant, layout, VARIANTS[variant], checkpoint(variant, layout))


@pytest.fixture(scope="session")
def tiny_pair(checkpoint):
    """The folder of an image-text pair as Apple writes it."""
    return checkpoint("lit", "apple")


@pytest.fixture(scope="session")
def tiny_vision(checkpoint):
    """The folder of a vision encoder of fixed size, without a head."""
    return checkpoint("fixed", "transformers")


@pytest.fixture(scope="session")
def tiny_native(checkpoint):
    """The folder of a vision encoder of native resolution."""
    return checkpoint("native", "transformers")


@pytest.fixture(scope="session")
def trained():
    """Makes a model's adapters as training leaves them: B is not zero, and lengths are not those of the rows.

    All is drawn from the seed, A too, which `attach` draws from whatever came before.
    """
    import mlx.core as mx

    from mlx_aimv2.adapters.attach import adapted

    def train(model, seed=1):
        keys = iter(mx.random.split(mx.random.key(seed), 512))
        for layer in adapted(model).values():
            layer.lora_b = mx.random.normal(layer.lora_b.shape, scale=0.3, key=next(keys))
            bound = layer.lora_a.shape[1] ** -0.5
            layer.lora_a = mx.random.uniform(-bound, bound, layer.lora_a.shape, key=next(keys))
            if "magnitude" in layer:
                factors = mx.random.uniform(0.8, 1.3, layer.magnitude.shape, key=next(keys))
                layer.magnitude = layer.magnitude * factors
        return model

    return train


@pytest.fixture(scope="session")
def with_adapter(trained):
    """Gives a base with a trained adapter, which is saved in a folder."""
    from mlx_aimv2 import load
    from mlx_aimv2.adapters.attach import AdapterConfig, attach
    from mlx_aimv2.adapters.store import save_adapter

    def make(base, folder, config=None, towers=("vision",), seed=1, **options):
        config = config or AdapterConfig(rank=4)
        model, _ = load(base, dtype="float32", **options)
        attach(model, config, towers)
        save_adapter(folder, trained(model, seed), config, model.origin)
        return model

    return make


@pytest.fixture
def faults(monkeypatch):
    """Lets every step of writing fail in turn."""
    from helpers.faults import Faults

    return Faults(monkeypatch)
