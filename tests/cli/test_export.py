"""The verb export."""

import mlx.core as mx
import pytest

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the notices of `warn`


def test_export_fuses_first(cli, pair, adapter, tmp_path):
    for name, arguments in (("with", ["--adapter-path", adapter]), ("without", [])):
        assert cli("export", pair, tmp_path / name, *arguments).returncode == 0
    one, other = (mx.load(str(tmp_path / name / "model.safetensors")) for name in ("with", "without"))
    changed = {name for name in one if not mx.array_equal(one[name], other[name])}
    assert len(changed) == 3 * 7 and all(name.startswith("vision_model.encoder.layers.") for name in changed)
