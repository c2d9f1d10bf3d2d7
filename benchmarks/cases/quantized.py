"""A 4-bit checkpoint on this device, against float32."""

from __future__ import annotations

import ours
from data import checkpoint, write_quantized
from suite import Case, Family, Result, Setup, Side
from timing import repeated, seconds

NAME, BITS = "large-224", 4


def forward(setup: Setup, name: str, batch: int, keep_quantized: bool = False) -> Result:
    """Loading, and forward passes."""
    from mlx_aimv2.backend.blas import load_blas

    load_blas()
    import mlx.core as mx

    loaded = []
    load_s = seconds(lambda: loaded.append(ours.load_model(setup, name, keep_quantized=keep_quantized)))
    model, _ = loaded[0]
    pixels = mx.random.normal((batch, 224, 224, 3))

    def run() -> None:
        mx.eval(model(pixels).last_hidden_state)

    samples = [seconds(run)] if keep_quantized else repeated(setup, run)  # packed weights are very slow
    return {"timings": {"": samples, "loading": [load_s]}, "values": {}}


def cases(setup: Setup) -> list[Case]:
    """Unpacked while loading, and packed."""
    prepare = (checkpoint(NAME), Side("4-bit", write_quantized, {"name": NAME, "bits": BITS}))
    quantized = f"{NAME}-{BITS}bit"
    sides = (
        Side("4-bit", forward, {"name": quantized, "batch": 1}),
        Side("float32", forward, {"name": NAME, "batch": 1}),
        Side(
            "4-bit, kept packed", forward, {"name": quantized, "batch": 1, "keep_quantized": True}, rounds=1
        ),
    )
    return [Case("batch 1", sides, 0, 3, prepare)]


FAMILY = Family(
    "quantized",
    "Quantized weights",
    "Forward passes of large-224, and the loading before them. On a CPU, 4-bit weights are unpacked while they are"
    " loaded, unless `--keep-quantized` is given.",
    cases,
)
