"""The classifier that a method trains: the encoder with a fresh head and adapters, frozen where it is not trained."""

from __future__ import annotations

from ..adapters.attach import AdapterConfig, attach
from ..datasets.labelled import Dataset
from ..errors import InputError
from ..loading import AnyModel
from ..messages import counted
from ..models.classifier import MULTI_LABEL, SINGLE_LABEL, Classifier
from ..models.classifier_heads import make_head
from ..models.vision import Aimv2VisionModel
from ..quantization.scheme import unpack_modules
from .methods import METHODS
from .options import FinetuneOptions


def adapter_config(options: FinetuneOptions) -> AdapterConfig | None:
    """The configuration of LoRA or DoRA; None for other methods."""
    kind = METHODS[options.fine_tune_type].adapter
    if kind is None:
        return None
    return AdapterConfig(
        type=kind,
        rank=options.rank,
        alpha=options.alpha,
        dropout=options.dropout,
        target_modules=options.modules,
        num_layers=options.num_layers,
    )


def build_classifier(model: AnyModel, dataset: Dataset, options: FinetuneOptions) -> Classifier:
    """The encoder of ``model`` with a fresh head; only what the method trains is unfrozen.

    Raises:
        InputError: the encoder has fewer layers than ``num_layers``.
    """
    trunk = model.vision
    trunk.origin = model.origin
    method, layers = METHODS[options.fine_tune_type], trunk.encoder.layers
    if options.num_layers is not None and options.num_layers > len(layers):
        raise InputError(
            f"--num-layers {options.num_layers}: this encoder has {counted(len(layers), 'layer')}"
        )
    trunk.freeze()
    if (config := adapter_config(options)) is not None:
        attach(trunk, config)
    elif method.full:
        _unfreeze(trunk, options)
    is_attentive = method.head == "attentive"
    extra = (
        {"heads": trunk.config.num_attention_heads} if is_attentive else {"batch_norm": options.batch_norm}
    )
    spec = {"kind": "attentive" if is_attentive else "linear", **extra}
    head = make_head(spec, trunk.config.hidden_size, len(dataset.labels))
    classifier = Classifier(trunk, head, "attentive" if is_attentive else options.pooling)
    classifier.labels, classifier.task = dataset.labels, MULTI_LABEL if dataset.multi_label else SINGLE_LABEL
    return classifier


def _unfreeze(trunk: Aimv2VisionModel, options: FinetuneOptions) -> None:
    unpack_modules(trunk, trunk.rms_norm.weight.dtype)  # quantized weights cannot be trained
    if options.num_layers is None:
        trunk.unfreeze()
    else:
        for layer in (*trunk.encoder.layers[-options.num_layers :], trunk.rms_norm):
            layer.unfreeze()
    if "head" in trunk:  # weight decay would shrink a head that has no gradient
        (trunk.head.unfreeze if options.pooling == "head" else trunk.head.freeze)()
