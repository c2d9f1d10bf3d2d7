"""Forward passes of the vision encoder, against PyTorch and against their own matrix products."""

from __future__ import annotations

from typing import Any

import ours
import torch_peers
from data import checkpoint
from suite import Case, Family, Result, Setup, Side
from timing import repeated, seconds

SHAPES = {  # checkpoint, height and width in pixels
    "336 x 336": ("large-336", 336, 336),
    "448 x 448": ("large-448", 448, 448),
    "native 308 x 420": ("native", 308, 420),
}
PRODUCTS = "mlx-aimv2: its matrix products alone"


def mlx(
    setup: Setup,
    name: str,
    batch: int,
    height: int,
    width: int,
    dtype: str | None = None,
    products: bool = False,
) -> Result:
    """This package, in the dtype that suits the device or another one."""
    model, _ = ours.load_model(setup, name, dtype=dtype)
    import mlx.core as mx

    pixels = mx.random.normal((batch, height, width, 3))
    mx.eval(pixels)
    timings = {"": repeated(setup, lambda: mx.eval(model(pixels).last_hidden_state))}
    values: dict[str, Any] = {}
    if products:
        run, operations = ours.matrix_products(model, batch, (height // 14) * (width // 14))
        timings["its matrix products alone"] = samples = repeated(setup, run)
        values["products_gflops"] = operations / sorted(samples)[len(samples) // 2] / 1e9
    return {"timings": timings, "values": values}


def transformers(
    setup: Setup, name: str, batch: int, height: int, width: int, dtype: str, compiled: bool = False
) -> Result:
    """transformers, as shipped or through `torch.compile`."""
    import torch

    model = torch_peers.load_model(setup, name, dtype)
    run_model = torch.compile(model) if compiled else model
    pixels = torch_peers.noise(batch, height, width, dtype)
    run = torch_peers.finished(lambda: run_model(pixels))
    with torch.inference_mode():
        values = {"first_call_s": seconds(run)} if compiled else {}
        return {"timings": {"": repeated(setup, run)}, "values": values}


def timm(setup: Setup, batch: int) -> Result:
    """timm's copy of large-224, random weights."""
    import timm as library
    import torch

    small = {"embed_dim": 64, "depth": 2, "num_heads": 2} if setup.quick else {}
    model = library.create_model("aimv2_large_patch14_224.apple_pt", pretrained=False, **small)
    model, pixels = model.to(torch_peers.device()).eval(), torch_peers.noise(batch, 224, 224)
    with torch.inference_mode():
        run = torch_peers.finished(lambda: model.forward_features(pixels))
        return {"timings": {"": repeated(setup, run)}, "values": {}}


def cases(setup: Setup) -> list[Case]:
    """Batches of large-224, then other shapes."""
    return [
        *(batch_case(batch, rounds) for batch, rounds in ((1, 3), (8, 3), (32, 1))),
        *(shape_case(label, *shape) for label, shape in SHAPES.items()),
    ]


def batch_case(batch: int, rounds: int) -> Case:
    """The peers at 224 pixels; on a GPU in half precision; on a CPU, what takes long to start only at batch 1."""
    # not above: processes of peers must not load MLX's BLAS
    from mlx_aimv2.backend.device import gpu_available

    shape = {"batch": batch, "height": 224, "width": 224, "name": "large-224"}

    def peer(dtype: str, compiled: bool = False, rounds: int | None = 1) -> Side:
        name = f"transformers {dtype}{', torch.compile' if compiled else ''}"
        arguments = {**shape, "dtype": dtype, "compiled": compiled}
        return Side(name, transformers, arguments, is_peer=True, rounds=rounds)

    sides = [Side("mlx-aimv2", mlx, {**shape, "products": batch < 32}), peer("float32", rounds=None)]
    if gpu_available():
        sides.append(Side("mlx-aimv2 bfloat16", mlx, {**shape, "dtype": "bfloat16"}))
        sides += [peer(dtype, compiled) for dtype in ("float16", "bfloat16") for compiled in (False, True)]
        return Case(f"batch {batch}", tuple(sides), batch, rounds, (checkpoint("large-224"),))
    if batch < 32:
        sides += [peer("bfloat16"), peer("float32", compiled=True)]
    if batch == 1:
        sides.append(peer("bfloat16", compiled=True))
        sides.append(Side("timm float32", timm, {"batch": batch}, is_peer=True, rounds=1))
    return Case(f"batch {batch}", tuple(sides), batch, rounds, (checkpoint("large-224"),))


def shape_case(label: str, name: str, height: int, width: int) -> Case:
    """A batch of one image of another shape."""
    shape = {"batch": 1, "height": height, "width": width, "name": name}
    peer = Side("transformers float32", transformers, {**shape, "dtype": "float32"}, is_peer=True)
    return Case(label, (Side("mlx-aimv2", mlx, shape), peer), rounds=1, prepare=(checkpoint(name),))


FAMILY = Family(
    "forward",
    "Forward pass of large-224",
    "Pixels to the last hidden state, random weights. The matrix products alone are those of the model, with its"
    " weights, in the process of its forward pass.",
    cases,
)
