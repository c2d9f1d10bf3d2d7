"""The verb models."""

import json


def test_models_lists_the_sixteen(cli):
    entries = [one for one in json.loads(cli("models", "--json").stdout) if one["name"] != "demo"]
    assert len(entries) == 16
    lit = next(entry for entry in entries if entry["name"] == "lit")
    assert lit["parameters"] == 436_680_193
    rows = [row for row in cli("models", "--timm").stdout.splitlines() if not row.startswith("demo\t")]
    assert len(rows) == 1 + 16 + 14
