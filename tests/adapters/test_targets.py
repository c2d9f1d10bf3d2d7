"""Names of the layers that adapters are put on."""

from mlx_aimv2.adapters.attach import (
    TARGETS,
    AdapterConfig,
)


def test_names_of_targets_have_one_form():
    config = AdapterConfig(target_modules=["down", "attention.v_proj", "q_proj", "q"])
    assert config.target_modules == ("q", "v", "down")
    assert AdapterConfig().target_modules == tuple(TARGETS)
