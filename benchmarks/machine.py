"""The machine and the versions, each described in the process of a side."""

from __future__ import annotations

import importlib.metadata

from suite import Result, Setup

LIBRARIES = ("mlx_aimv2", "mlx", "numpy", "pillow", "python")
PEERS = ("torch", "transformers", "timm", "peft", "torchvision")


def describe(setup: Setup) -> Result:
    """Hardware, system, BLAS, and the versions of this package and of what it uses."""
    from mlx_aimv2.benchmarking.machine import describe_machine

    facts = describe_machine().to_dict()
    versions = {name.replace("_", "-"): facts.pop(name) for name in LIBRARIES}
    return {"timings": {}, "values": {**facts, "versions": versions}}


def peer_versions(setup: Setup) -> Result:
    """The versions of those that are installed."""
    versions = {}
    for name in PEERS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"timings": {}, "values": versions}
