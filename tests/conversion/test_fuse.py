"""Checkpoints with an adapter merged into them."""

import json

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import LoadOptions, convert, load
from mlx_aimv2.adapters.attach import AdapterConfig, adapted
from mlx_aimv2.adapters.store import write_tensors
from mlx_aimv2.adapters.task import Task, read_task, write_task
from mlx_aimv2.adapters.weights import HEAD, TRUNK
from mlx_aimv2.conversion.export import export
from mlx_aimv2.conversion.fuse import fuse
from mlx_aimv2.conversion.options import ConvertOptions, ExportOptions, FuseOptions
from mlx_aimv2.errors import ConfigError, InputError, MismatchError, NotACheckpointError, OutputError
from mlx_aimv2.events import Notice, Progress, ignore
from mlx_aimv2.models.classifier import Classifier
from mlx_aimv2.models.classifier_heads import make_head
from mlx_aimv2.quantization.scheme import Scheme

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the notices of `warn`

PACKED = LoadOptions(dtype="float32", keep_quantized=True)
KINDS = ("lora", "dora")


@pytest.fixture
def pixels():
    return mx.random.normal((2, 56, 56, 3), key=mx.random.key(3))


def run(model, pixels):
    return model.vision(pixels).last_hidden_state


def error(ours, theirs):
    return (mx.abs(ours - theirs).max() / mx.abs(theirs).max()).item()


def quantized(source, target, bits=8, **options):
    return convert(source, target, options=ConvertOptions(scheme=Scheme(32, bits), **options))


def write_head(folder, base, labels=("cat", "dog")):
    head = make_head({"kind": "linear"}, 64, len(labels))
    write_tensors(folder / HEAD, dict(tree_flatten(head.parameters())), {"format": "mlx"})
    write_task(folder, Task(labels=labels, base=base, method="lora"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("variant", "layout"),
    [("fixed", "apple"), ("fixed", "timm"), ("biases", "transformers"), ("native", "mlx"), ("lit", "apple")],
)
def test_a_fused_checkpoint_gives_what_base_and_adapter_give(
    with_adapter, checkpoint, tmp_path, pixels, kind, variant, layout
):
    base = checkpoint(variant, layout)
    model = with_adapter(base, tmp_path / "a", AdapterConfig(type=kind, rank=4))
    folder = fuse(base, tmp_path / "a", tmp_path / "out")
    fused, _ = load(folder, dtype="float32")
    assert error(run(fused, pixels), run(model, pixels)) < 1e-5
    assert error(run(fused, pixels), run(load(base, dtype="float32")[0], pixels)) > 1e-2
    assert fused.origin.layout == "mlx" and not adapted(fused)
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "float32" and "quantization" not in config


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_stay_in_the_dtype_they_were_stored_in(with_adapter, checkpoint, tmp_path, dtype):
    base = checkpoint("fixed", dtype=dtype)
    with_adapter(base, tmp_path / "a")
    folder = fuse(base, tmp_path / "a", tmp_path / "out")
    tensors = mx.load(str(folder / "model.safetensors"))
    assert {x.dtype for x in tensors.values()} == {getattr(mx, dtype)}


@pytest.mark.parametrize("kind", KINDS)
def test_quantized_weights_are_quantized_again_in_the_same_way(
    with_adapter, checkpoint, tmp_path, pixels, kind
):
    base = quantized(checkpoint("fixed"), tmp_path / "q")
    model = with_adapter(
        base, tmp_path / "a", AdapterConfig(type=kind, target_modules=("q", "v")), options=PACKED
    )
    notices = []
    folder = fuse(base, tmp_path / "a", tmp_path / "out", on_event=notices.append)
    assert any(
        "quantized again, which rounds" in event.message for event in notices if isinstance(event, Notice)
    )
    before, after = (mx.load(str(path / "model.safetensors")) for path in (base, folder))
    assert {n: (x.shape, x.dtype) for n, x in before.items()} == {
        n: (x.shape, x.dtype) for n, x in after.items()
    }
    changed = {name for name, x in before.items() if not mx.array_equal(x, after[name])}
    assert changed and all(".q_proj." in name or ".v_proj." in name for name in changed)
    one, other = (json.loads((path / "config.json").read_text()) for path in (base, folder))
    assert other["quantization"] == one["quantization"] == other["quantization_config"]
    fused, _ = load(folder, options=PACKED)
    assert error(run(fused, pixels), run(model, pixels)) < 0.05


def test_mixed_bits_stay_mixed(with_adapter, checkpoint, tmp_path):
    options = ConvertOptions(quant_predicate="mixed_4_6", scheme=Scheme(32, 4))
    base = convert(checkpoint("fixed"), tmp_path / "q", options=options)
    model = with_adapter(base, tmp_path / "a", options=PACKED)
    folder = fuse(base, tmp_path / "a", tmp_path / "out")
    fused, _ = load(folder, options=PACKED)
    for path, layer in adapted(model).items():
        found, expected = dict(fused.named_modules())[path], layer.fuse()
        assert found.bits == expected.bits and mx.array_equal(found.weight, expected.weight)
    before, after = (
        json.loads((path / "config.json").read_text())["quantization"] for path in (base, folder)
    )
    assert before == after and any(isinstance(value, dict) for value in after.values())


@pytest.mark.parametrize("kind", KINDS)
def test_quantized_weights_become_plain_when_asked(with_adapter, checkpoint, tmp_path, pixels, kind):
    base = quantized(checkpoint("fixed"), tmp_path / "q", bits=4)
    model = with_adapter(base, tmp_path / "a", AdapterConfig(type=kind), options=PACKED)
    folder = fuse(base, tmp_path / "a", tmp_path / "out", options=FuseOptions(dequantize=True))
    fused, _ = load(folder, dtype="float32")
    assert fused.origin.quantization is None
    assert error(run(fused, pixels), run(model, pixels)) < 1e-4


def test_only_so_much_is_in_one_file(with_adapter, checkpoint, tmp_path, pixels):
    base = checkpoint("fixed")
    model = with_adapter(base, tmp_path / "a")
    folder = fuse(base, tmp_path / "a", tmp_path / "out", options=FuseOptions(max_shard_bytes=100_000))
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert error(run(load(folder, dtype="float32")[0], pixels), run(model, pixels)) < 1e-5


def test_the_head_comes_along(with_adapter, checkpoint, tmp_path, pixels):
    base = checkpoint("lit")
    model = with_adapter(base, tmp_path / "a")
    write_head(tmp_path / "a", model.origin)
    folder = fuse(base, tmp_path / "a", tmp_path / "out")
    before, _ = load(base, dtype="float32", adapter_path=tmp_path / "a")
    after, _ = load(folder, dtype="float32", adapter_path=folder)
    assert isinstance(after, Classifier) and after.labels == ("cat", "dog") and not adapted(after)
    assert error(after(pixels), before(pixels)) < 1e-4
    assert read_task(folder).base.checkpoint == after.origin.checkpoint == load(folder)[0].origin.checkpoint
    assert read_task(folder).base.name == str(folder)
    with pytest.raises(InputError, match="was trained on"):
        load(base, adapter_path=folder)


def test_everything_else_comes_along_too(with_adapter, tiny_pair, tmp_path):
    with_adapter(tiny_pair, tmp_path / "a", AdapterConfig(type="dora", rank=4))
    folder = fuse(tiny_pair, tmp_path / "a", tmp_path / "out")
    names = {path.name for path in folder.iterdir()}
    assert {"vocab.json", "merges.txt", "preprocessor_config.json", "config.json", "README.md"} <= names
    card = (folder / "README.md").read_text()
    assert "A DoRA adapter of rank 4 was merged into its weights." in card
    assert "# out" in card


def write_trunk(folder, model):
    """An encoder that was trained as a whole, with its head."""
    folder.mkdir()
    trunk = model.vision
    tensors = {name: x + 0.1 for name, x in tree_flatten(trunk.parameters())}
    write_tensors(folder / TRUNK, tensors, {"format": "mlx"})
    write_head(folder, model.origin)
    trunk.load_weights(list(tensors.items()))
    return model


@pytest.mark.parametrize("variant", ["fixed", "lit"])
def test_a_whole_encoder_takes_the_place_of_the_bases(checkpoint, tmp_path, pixels, variant):
    base = checkpoint(variant)
    model = write_trunk(tmp_path / "a", load(base, dtype="float32")[0])
    before, _ = load(base, dtype="float32", adapter_path=tmp_path / "a")
    assert mx.array_equal(run(before.trunk, pixels), run(model, pixels))
    assert before.origin.adapter is not None
    folder = fuse(base, tmp_path / "a", tmp_path / "out")
    fused, _ = load(folder, dtype="float32", adapter_path=folder)
    assert mx.array_equal(fused(pixels), before(pixels))
    assert "Its image encoder was trained further, as a whole." in (folder / "README.md").read_text()


def test_a_whole_encoder_is_quantized_as_its_base_was_or_stays_plain(checkpoint, tmp_path, pixels):
    base = quantized(checkpoint("fixed"), tmp_path / "q")
    model = write_trunk(tmp_path / "a", load(base, dtype="float32", on_event=ignore)[0])
    folder = fuse(base, tmp_path / "a", tmp_path / "plain", options=FuseOptions(dequantize=True))
    assert mx.array_equal(run(load(folder, dtype="float32")[0], pixels), run(model, pixels))
    again = convert(folder, tmp_path / "again", options=ConvertOptions(scheme=Scheme(32, 8)))
    folder = fuse(base, tmp_path / "a", tmp_path / "packed")
    one, other = (mx.load(str(path / "model.safetensors")) for path in (again, folder))
    assert one.keys() == other.keys() and any(name.endswith(".scales") for name in one)
    assert all(mx.array_equal(one[name], other[name]) for name in one if name.endswith(".weight"))


def test_a_whole_encoder_takes_the_place_of_packed_weights(checkpoint, tmp_path, pixels):
    base = quantized(checkpoint("fixed"), tmp_path / "q")
    model = write_trunk(tmp_path / "a", load(base, dtype="float32", on_event=ignore)[0])
    before, _ = load(base, options=PACKED, adapter_path=tmp_path / "a")
    assert mx.array_equal(run(before.trunk, pixels), run(model, pixels))


def test_an_adapter_and_a_whole_encoder_in_one_folder_are_refused(with_adapter, tiny_vision, tmp_path):
    model = with_adapter(tiny_vision, tmp_path / "a")
    write_trunk(tmp_path / "b", load(tiny_vision)[0])
    write_tensors(tmp_path / "a" / TRUNK, mx.load(str(tmp_path / "b" / TRUNK)), {})
    write_head(tmp_path / "a", model.origin)
    message = (
        r"holds adapter_config\.json and trunk\.safetensors: two trainings, remove what is of the older one"
    )
    with pytest.raises(ConfigError, match=message):
        load(tiny_vision, adapter_path=tmp_path / "a")


def test_progress_is_told(with_adapter, tiny_vision, tmp_path):
    with_adapter(tiny_vision, tmp_path / "a")
    events = []
    fuse(tiny_vision, tmp_path / "a", tmp_path / "out", on_event=events.append)
    told = [event for event in events if isinstance(event, Progress) and event.stage == "fusing"]
    assert told[-1].done == told[-1].total == len(told)


@pytest.mark.parametrize("format", ["transformers", "apple", "apple-mlx"])
def test_an_adapter_is_exported_with_its_base(with_adapter, checkpoint, tmp_path, pixels, format):
    base = checkpoint("head")
    model = with_adapter(base, tmp_path / "a", AdapterConfig(type="dora", rank=4))
    folder = export(base, tmp_path / "out", format, adapter_path=tmp_path / "a")
    fused, _ = load(folder, dtype="float32")
    assert fused.origin.layout == format
    assert error(run(fused, pixels), run(model, pixels)) < 1e-5


def test_an_adapter_of_a_quantized_base_is_exported_plain(with_adapter, checkpoint, tmp_path, pixels):
    base = quantized(checkpoint("fixed"), tmp_path / "q")
    model = with_adapter(base, tmp_path / "a", options=PACKED)
    folder = export(base, tmp_path / "out", adapter_path=tmp_path / "a")
    assert error(run(load(folder, dtype="float32")[0], pixels), run(model, pixels)) < 1e-4


def test_a_head_that_is_not_exported_is_named(with_adapter, checkpoint, tmp_path):
    base, notices = checkpoint("fixed"), []
    model = with_adapter(base, tmp_path / "a")
    write_head(tmp_path / "a", model.origin)
    export(base, tmp_path / "out", adapter_path=tmp_path / "a", on_event=notices.append)
    said = [event.message for event in notices if isinstance(event, Notice)]
    assert said == [f"the head in {tmp_path / 'a'} stays there: the encoder alone is exported"]


def test_another_base_is_refused_and_nothing_is_left(with_adapter, checkpoint, tmp_path):
    with_adapter(checkpoint("fixed"), tmp_path / "a")
    other = checkpoint("head")
    for work in (
        lambda: fuse(other, tmp_path / "a", tmp_path / "out"),
        lambda: export(other, tmp_path / "out", adapter_path=tmp_path / "a"),
    ):
        with pytest.raises(InputError, match=f"was trained on .*and this is {other}"):
            work()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    fuse(other, tmp_path / "a", tmp_path / "out", options=FuseOptions(any_base=True))
    export(other, tmp_path / "exported", options=ExportOptions(any_base=True), adapter_path=tmp_path / "a")


def test_an_adapter_that_does_not_fit_is_refused(with_adapter, checkpoint, tmp_path):
    with_adapter(checkpoint("fixed"), tmp_path / "a")
    with pytest.raises(MismatchError, match="does not fit the model: 28 of the wrong shape"):
        fuse(checkpoint("odd-heads"), tmp_path / "a", tmp_path / "out", options=FuseOptions(any_base=True))
    assert not (tmp_path / "out").exists()


def test_plain_weights_cannot_be_dequantized(with_adapter, tiny_vision, tmp_path):
    with_adapter(tiny_vision, tmp_path / "a")
    with pytest.raises(InputError, match="is not quantized: there is nothing to dequantize"):
        fuse(tiny_vision, tmp_path / "a", tmp_path / "out", options=FuseOptions(dequantize=True))


def test_a_head_alone_is_nothing_to_fuse(tiny_vision, tmp_path):
    (tmp_path / "a").mkdir()
    write_head(tmp_path / "a", load(tiny_vision)[0].origin)
    for work in (
        fuse,
        lambda base, adapter, target: export(base, target, adapter_path=adapter),
    ):
        with pytest.raises(InputError, match="holds a trained head and no adapter: there is nothing to fuse"):
            work(tiny_vision, tmp_path / "a", tmp_path / "out")


def test_a_head_that_does_not_fit_is_refused_before_the_work(
    with_adapter, tiny_vision, tmp_path, monkeypatch
):
    model = with_adapter(tiny_vision, tmp_path / "a")
    write_head(tmp_path / "a", model.origin)
    write_tensors(tmp_path / "a" / HEAD, {"linear.weight": mx.zeros((2, 3))}, {})
    monkeypatch.setattr("mlx_aimv2.conversion.fuse.write_shards", lambda *_: pytest.fail("the work began"))
    with pytest.raises(MismatchError, match=r"does not fit the head in task\.json"):
        fuse(tiny_vision, tmp_path / "a", tmp_path / "out")


def test_a_checkpoint_is_replaced_when_asked(with_adapter, tiny_vision, tmp_path):
    with_adapter(tiny_vision, tmp_path / "a")
    options = FuseOptions(force=True)
    for _ in range(2):
        fuse(tiny_vision, tmp_path / "a", tmp_path / "out", options=options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out"]
    with pytest.raises(
        InputError, match=r"a holds adapter_config\.json, and --force replaces nothing but a checkpoint"
    ):
        fuse(tiny_vision, tmp_path / "a", tmp_path / "a", options=options)


def test_an_existing_folder_is_refused(with_adapter, tiny_vision, tmp_path):
    with_adapter(tiny_vision, tmp_path / "a")
    with pytest.raises(OutputError, match="a exists already: name another, or replace it with force=True"):
        fuse(tiny_vision, tmp_path / "a", tmp_path / "a")


def test_a_folder_that_is_not_there_is_named(tiny_vision, tmp_path):
    with pytest.raises(NotACheckpointError, match="nowhere: there is no such folder"):
        fuse(tiny_vision, tmp_path / "nowhere", tmp_path / "out", on_event=ignore)
    (tmp_path / "file").touch()
    with pytest.raises(NotACheckpointError, match="file: is no folder: name the one that holds the adapter"):
        fuse(tiny_vision, tmp_path / "file", tmp_path / "out", on_event=ignore)
