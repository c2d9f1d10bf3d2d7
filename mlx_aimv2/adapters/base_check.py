"""Whether an adapter is put on what it was trained on."""

from __future__ import annotations

import re

from ..checkpoints.identity import Origin
from ..errors import Advice, InputError

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
ANY_BASE = Advice(
    "load that one, or use this one all the same with {}", "any_base", True, otherwise="load that one"
)


def require_base(
    source: str,
    name: str | None,
    checkpoint: str | None,
    origin: Origin | None,
    any_base: bool = False,
    advice: Advice = ANY_BASE,
) -> None:
    """Refuse a base that is not the one an adapter, or a head, was trained on.

    The hash of its checkpoint decides. Where there is none, as in what PEFT writes, two different repositories are
    refused, and anything else is let pass: the shapes are compared in any case.

    Args:
        source: what to call the adapter in the message.
        name: repository or folder of the base it was trained on, if known.
        checkpoint: the hash of that base, if known.
        origin: of the model it is put on; None for a model that was not loaded.
        any_base: let everything pass, such as a quantized copy of the same base.
        advice: what the message says to do.

    Raises:
        InputError: another base, naming both.
    """
    if any_base or origin is None:
        return
    if checkpoint is not None:
        if checkpoint != origin.checkpoint:
            raise InputError(
                f"{source} was trained on {name or 'another checkpoint'} (checkpoint {checkpoint}), and this is"
                f" {origin.name} (checkpoint {origin.checkpoint})",
                advice,
            )
    elif (
        name is not None
        and origin.revision is not None
        and REPOSITORY.fullmatch(name)
        and name != origin.name
    ):
        raise InputError(f"{source} was trained on {name}, and this is {origin.name}", advice)
