"""What this machine reaches at best: square matrix products, through MLX's BLAS and through PyTorch's."""

from __future__ import annotations

from suite import Case, Family, Result, Setup, Side
from timing import repeated

SIZES = (1024, 2048, 3072)


def rates(by_size: dict[int, float]) -> Result:
    """The result of a side, from floating-point operations per second."""
    values = {f"gflops_{size}": rate / 1e9 for size, rate in by_size.items()}
    return {"timings": {}, "values": {**values, "gflops": max(values.values())}}


def mlx(setup: Setup) -> Result:
    """The BLAS that this package loads."""
    from mlx_aimv2.benchmarking.peak import product_rate

    sizes = SIZES[:1] if setup.quick else SIZES
    return rates({size: product_rate(size, budget_s=0.01 if setup.quick else 2) for size in sizes})


def torch(setup: Setup) -> Result:
    """PyTorch's own BLAS."""
    import torch as library
    import torch_peers

    device = torch_peers.device()
    by_size, dtype = {}, library.float16 if device == "cuda" else library.float32
    for size in SIZES[:1] if setup.quick else SIZES:
        a, b = (library.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        run = torch_peers.finished(lambda a=a, b=b: a @ b)
        by_size[size] = 2 * size**3 / min(repeated(setup, run, most=20, budget_s=2))
    return rates(by_size)


def cases(setup: Setup) -> list[Case]:
    """One case."""
    sides = (Side("MLX's BLAS", mlx), Side("PyTorch", torch, is_peer=True))
    return [Case("square products", sides, rounds=2)]


FAMILY = Family(
    "peak",
    "Measured peak of the machine",
    f"The fastest product of two square matrices with {', '.join(map(str, SIZES))} rows, in GFLOP/s; in float32,"
    " on a GPU in float16.",
    cases,
)
