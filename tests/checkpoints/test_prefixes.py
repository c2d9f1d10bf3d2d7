"""Checkpoints that other programs saved: a prefix, something beside the encoder, two encoders in one file."""

import json
import shutil
import warnings

import mlx.core as mx
import numpy as np
import pytest

from mlx_aimv2 import convert, export, load
from mlx_aimv2.checkpoints.layouts import LAYOUTS, detect
from mlx_aimv2.checkpoints.prefixes import grouped
from mlx_aimv2.errors import LayoutError, MismatchError
from mlx_aimv2.loading import inspect

PREFIXES = ["_orig_mod.", "module.", "model.", "vision_tower.", "encoder.", "module._orig_mod.", "a.b.c.d."]
LOADABLE = ["apple", "apple-mlx", "transformers", "mlx", "timm"]


def as_safetensors(folder, tensors, metadata):
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata)


def as_npz(folder, tensors, metadata):
    (folder / "model.safetensors").unlink()
    np.savez(folder / "weights.npz", **{name: np.array(x) for name, x in tensors.items()})


def as_shards(folder, tensors, metadata):
    (folder / "model.safetensors").unlink()
    place = {}
    for number in range(2):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        part = {name: x for k, (name, x) in enumerate(tensors.items()) if k % 2 == number}
        mx.save_safetensors(str(folder / file), part, metadata)
        place.update(dict.fromkeys(part, file))
    index = {"metadata": {}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


WRITERS = [as_safetensors, as_npz, as_shards]


@pytest.fixture
def rewritten(checkpoint, tmp_path):
    """Gives a copy of a small checkpoint whose tensors went through a function."""

    def rewrite(change, variant="fixed", layout="transformers", write=as_safetensors):
        folder = shutil.copytree(checkpoint(variant, layout), tmp_path / "rewritten")
        path = str(folder / "model.safetensors")
        tensors, metadata = mx.load(path, return_metadata=True)
        mx.eval(tensors)
        write(folder, change(dict(tensors)), metadata)
        return folder

    return rewrite


def under(prefix):
    return lambda tensors: {prefix + name: x for name, x in tensors.items()}


def same_weights(one, two):
    from mlx.utils import tree_flatten

    one, two = dict(tree_flatten(one.parameters())), dict(tree_flatten(two.parameters()))
    return one.keys() == two.keys() and all(mx.array_equal(one[name], two[name]).item() for name in one)


def notices(folder, **options):
    told = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, _ = load(folder, on_event=lambda event: told.append(getattr(event, "message", "")), **options)
    return model, [message for message in told if "of the names" in message or "left out" in message]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("variant", ["fixed", "lit"])
def test_a_prefix_that_all_names_share_is_taken_off_with_a_notice(rewritten, checkpoint, prefix, variant):
    model, told = notices(rewritten(under(prefix), variant))
    assert told == [f"the model is taken from below {prefix} of the names of its tensors"]
    assert same_weights(model, load(checkpoint(variant, "transformers"))[0])


def within(tensors):
    """As PyTorch names what is wrapped layer by layer, and tower by tower."""
    wrapped = {}
    for name, x in tensors.items():
        name = name.replace("layers.0.", "layers.0._fsdp_wrapped_module._checkpoint_wrapped_module.")
        wrapped[name.replace("_model.", "_model._orig_mod.")] = x
    return wrapped


@pytest.mark.parametrize("prefix", ["", "module.", "_fsdp_wrapped_module."])
@pytest.mark.parametrize("variant", ["fixed", "lit"])
def test_wrappers_within_the_names_are_taken_out_with_a_notice(rewritten, checkpoint, prefix, variant):
    folder = rewritten(lambda tensors: under(prefix)(within(tensors)), variant)
    told = []
    model, _ = load(folder, on_event=lambda event: told.append(getattr(event, "message", "")))
    assert any("are read without the wrappers in them" in line for line in told)
    assert not any("left out" in line for line in told)
    assert same_weights(model, load(checkpoint(variant, "transformers"))[0])


def test_a_tensor_with_and_without_a_wrapper_is_refused(rewritten):
    with pytest.raises(
        LayoutError, match="some tensors are there twice, once below a wrapper such as _orig_mod"
    ):
        inspect(rewritten(lambda tensors: {**tensors, **within(tensors)}))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("layout", LOADABLE)
def test_every_layout_and_file_format(rewritten, checkpoint, layout, write):
    def change(tensors):
        return {
            **under("module.")(tensors),
            "classifier.weight": mx.zeros((3, 64)),
            "classifier.bias": mx.zeros(3),
        }

    model, told = notices(rewritten(change, layout=layout, write=write))
    assert told[1:] == ["left out, no part of the model: classifier (2 tensors)"]
    assert same_weights(model, load(checkpoint("fixed", layout))[0])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_names_of_every_layout_are_found_below_a_prefix(layout, prefix, variants, canonical):
    tensors = canonical(variants["fixed"])
    wrapped = under(prefix)(LAYOUTS[layout].from_canonical(tensors)[0])
    found = detect({name: tuple(x.shape) for name, x in wrapped.items()})
    assert (found.name, found.prefix) == (layout, prefix)
    assert {name: x.shape for name, x in found.to_canonical(wrapped)[0].items()} == {
        name: x.shape for name, x in tensors.items()
    }


def test_what_lies_beside_the_encoder_is_left_out_and_counted(rewritten, checkpoint):
    extra = {"head.weight": 2, "head.bias": 1, "fc.weight": 2, "decoder.layers.0.weight": 2, "step": 0}
    folder = rewritten(lambda t: {**t, **{name: mx.ones((3,) * ndim) for name, ndim in extra.items()}})
    model, told = notices(folder)
    groups = "decoder (1 tensor), fc (1 tensor), head (2 tensors), step (1 tensor)"
    assert told == [f"left out, no part of the model: {groups}"]
    assert same_weights(model, load(checkpoint("fixed", "transformers"))[0])


def test_a_classifier_of_timm_is_left_out(rewritten):
    change = lambda t: {**t, "head.weight": mx.ones((3, 64)), "fc_norm.weight": mx.ones(64)}  # noqa: E731
    assert notices(rewritten(change, layout="timm"))[1] == [
        "left out, no part of the model: fc_norm (1 tensor), head (1 tensor)"
    ]


def test_inside_the_encoder_nothing_is_left_out(rewritten):
    folder = rewritten(lambda t: under("module.")({**t, "encoder.layers.0.gamma": mx.ones(3)}))
    with pytest.raises(MismatchError, match=r"1 unexpected: encoder\.layers\.0\.gamma"):
        load(folder, on_event=lambda event: None)


def test_what_is_missing_below_a_prefix_is_named(rewritten):
    def change(tensors):
        tensors.pop("encoder.layers.1.ffn.up_proj.weight")
        return under("_orig_mod.")(tensors)

    with pytest.raises(MismatchError, match=r"1 missing: encoder\.layers\.1\.ffn\.up_proj\.weight"):
        load(rewritten(change), on_event=lambda event: None)


@pytest.mark.parametrize(("one", "two"), [("student.", "teacher."), ("model.", "model_ema."), ("", "ema.")])
def test_two_encoders_in_one_file_are_refused(rewritten, one, two):
    folder = rewritten(lambda t: {**under(one)(t), **under(two)(t)})
    with pytest.raises(
        LayoutError, match=r"2 encoders in one file, below .*: write the tensors of one"
    ) as error:
        load(folder)
    assert f"{one or 'no prefix'} (" in str(error.value) and f"{two} (" in str(error.value)


def test_convert_and_export_take_the_model_alone(rewritten, checkpoint, tmp_path):
    folder = rewritten(lambda t: {**under("module.")(t), "fc.weight": mx.ones(3)})
    told = []
    options = {"on_event": lambda event: told.append(getattr(event, "message", ""))}
    convert(str(folder), str(tmp_path / "converted"), **options)
    export(str(folder), str(tmp_path / "exported"), "apple", **options)
    assert sum(message == "left out, no part of the model: fc (1 tensor)" for message in told) == 2
    expected = load(checkpoint("fixed", "transformers"))[0]
    for name in ("converted", "exported"):
        assert same_weights(load(tmp_path / name, on_event=lambda event: None)[0], expected)
        assert inspect(tmp_path / name, on_event=lambda event: None).layout.prefix == ""


def test_many_groups_are_a_short_line():
    names = [f"part{number}.weight" for number in range(30)]
    assert grouped(names).endswith("(1 tensor) and 22 more")
