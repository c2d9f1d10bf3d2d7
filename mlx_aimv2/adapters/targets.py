"""Which layers of an encoder can be adapted, and how they are called; options are checked with it without MLX."""

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
    """Layers as q, k, v, out, gate, up, down, in this order; files call them q_proj, or attention.q_proj.

    Raises:
        InputError: there is none, or one that no encoder has.
    """
    if isinstance(names, str) or not names:
        raise InputError(f"target_modules must name at least one of {', '.join(TARGETS)}, not {names!r}")
    short = [str(name).rpartition(".")[2].removesuffix("_proj") for name in names]
    for name, one in zip(names, short, strict=True):
        if one not in TARGETS or name not in (one, f"{one}_proj", TARGETS[one]):
            raise InputError(f"target module {name!r} is not one of {', '.join(TARGETS)}")
    return tuple(one for one in TARGETS if one in short)
