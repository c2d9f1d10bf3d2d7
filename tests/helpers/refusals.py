"""The message of a refusal."""

from collections.abc import Callable

import pytest

from mlx_aimv2.errors import Aimv2Error


def message(kind: type[Aimv2Error], call: Callable[[], object]) -> str:
    """The message of a refusal, which has to be of exactly this class and one line long."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)
