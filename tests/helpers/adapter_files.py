"""Reading and changing the files of an adapter."""

import json

import mlx.core as mx


def read(path):
    """The object in a JSON file."""
    return json.loads(path.read_text())


def change(folder, **values):
    """Replace values of adapter_config.json."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**read(path), **values}))


def change_tensors(folder, function):
    """Replace the tensors of an adapter by what ``function`` makes of them."""
    path = str(folder / "adapter_model.safetensors")
    tensors, metadata = mx.load(path, return_metadata=True)
    mx.eval(tensors)
    mx.save_safetensors(path, function(dict(tensors)), metadata=metadata)
