"""The layers of an encoder that can have an adapter, and their names. Imports no MLX."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError

TARGETS = {  # short name -> where in a layer
    "q": "attention.q_proj",
    "k": "attention.k_proj",
    "v": "attention.v_proj",
    "out": "attention.out_proj",
    "gate": "ffn.gate_proj",
    "up": "ffn.up_proj",
    "down": "ffn.down_proj",
}
MAX_RANK = 1 << 14


def short_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of layers as q, k, v, out, gate, up, down, in this order; also accepts q_proj and attention.q_proj.

    Raises:
        InputError: there are no names, or an unknown one.
    """
    if isinstance(names, str) or not names:
        raise InputError(f"target_modules must name at least one of {', '.join(TARGETS)}, not {names!r}")
    short = [str(name).rpartition(".")[2].removesuffix("_proj") for name in names]
    for name, target in zip(names, short, strict=True):
        if target not in TARGETS or name not in (target, f"{target}_proj", TARGETS[target]):
            raise InputError(f"target module {name!r} is not one of {', '.join(TARGETS)}")
    return tuple(target for target in TARGETS if target in short)
