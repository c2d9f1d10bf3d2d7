"""The model card of a converted checkpoint: its README.md, with the metadata that the Hub reads.

Licence and base model come from the source's card. Anyone may have written that card: it is read as texts alone,
within bounds, and a damaged card states nothing. Source of the metadata's keys: the Hub's documentation ("Model
cards").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # huggingface_hub brings it

from ..checkpoints.checkpoint_names import is_repo_name
from ..checkpoints.matching import fold_names
from ..config import AnyConfig
from ..presets import PRESETS

CARD, LIBRARY, TAG = "README.md", "mlx", "mlx-aimv2"
TAGS = ("mlx", "aimv2", TAG, "vision")
MAX_CARD, MAX_METADATA, MAX_LINK = 2**20, 2**16, 500  # characters
HUB = "https://huggingface.co"

Metadata = Mapping[str, tuple[str, ...]]

_FENCE = "---"
_TEXT = "tag:yaml.org,2002:str"
_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?")
_LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
_LICENSE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .,+()_-]{0,95}")
_ADDRESS = re.compile(r"https?://[\w.-]+(?::\d+)?(?:/[\w./%#?=&~+:@-]*)?", re.ASCII)
_FILE = re.compile(r"(?:\./)?(\w[\w.-]*(?:/\w[\w.-]*)*)", re.ASCII)


@dataclass(frozen=True)
class CardFacts:
    """The facts on a card.

    Attributes:
        name: of the checkpoint in the usage: its repository, or its folder's name.
        config: of the model.
        parameters: weights of the model, all towers together.
        repo: the source's repository, `owner/name`; None for a local folder.
        revision: the source's commit; None for a local folder.
        source_card: the source's README.md from `read_card`; None without one.
        license_files: names of the licence files beside the weights.
        layout: of the source.
        dtype: of weights that are not quantized.
        quantization: such as `4-bit affine, groups of 64`; None for plain weights.
        bits_per_weight: of the result, scales included.
        nbytes: bytes of all tensors of the result.
        kept: the names of the tensors that are not quantized, by reason.
        unpacked_from: the quantization of a source whose weights were unpacked; None for a plain source.
        fidelity: a section in Markdown that compares result and source; None without a comparison.
        version: of this package.
        training: a sentence on the training since the source; None for none.
        source: the name of a source that is no repository.
    """

    name: str
    config: AnyConfig
    parameters: int
    layout: str
    dtype: str
    bits_per_weight: float
    nbytes: int
    version: str
    repo: str | None = None
    revision: str | None = None
    source_card: str | None = None
    license_files: tuple[str, ...] = ()
    quantization: str | None = None
    kept: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unpacked_from: str | None = None
    fidelity: str | None = None
    training: str | None = None
    source: str = "a local folder"


@dataclass(frozen=True)
class License:
    """The licence of a source.

    Attributes:
        ids: the card's `license`; empty if it states none.
        name: `license_name`, beside the id "other".
        link: `license_link`, an address or the name of a file beside the card.
        from_card: False if the licence comes from the table of published checkpoints.
    """

    ids: tuple[str, ...] = ()
    name: str | None = None
    link: str | None = None
    from_card: bool = True


def read_card(folder: Path) -> str | None:
    """The start of a checkpoint's README.md; None if there is none or it cannot be read."""
    path = folder / CARD
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(MAX_CARD).decode(errors="replace")
    except OSError:
        return None


def read_metadata(card: str | None) -> Metadata:
    """Texts and lists of texts of a card's front matter, by key; empty if it is damaged or too large.

    The YAML is parsed into nodes only: tags, types and references have no effect.
    """
    block = _front_matter(card or "")
    if len(block) > MAX_METADATA:
        return {}
    try:
        root = yaml.compose(block, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    if not isinstance(root, yaml.MappingNode):
        return {}
    return {key.value: texts for key, value in root.value if _is_text(key) and (texts := _texts(value))}


def _front_matter(card: str) -> str:
    lines = [line.rstrip() for line in card.removeprefix("\ufeff").lstrip().split("\n")]
    if lines[0] != _FENCE or _FENCE not in lines[1:]:
        return ""
    return "\n".join(lines[1 : lines.index(_FENCE, 1)])


def _is_text(node: Any) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _TEXT


def _texts(node: Any) -> tuple[str, ...]:
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    return tuple(text.value for text in nodes) if all(map(_is_text, nodes)) else ()


def is_ours(metadata: Metadata) -> bool:
    """Whether the metadata is from a card of this package."""
    return metadata.get("library_name") == (LIBRARY,) and TAG in metadata.get("tags", ())


def license_of(facts: CardFacts, metadata: Metadata) -> License:
    """The licence in the source's card, or else that of a published checkpoint, or else none."""
    ids = metadata.get("license", ())
    if ids and all(map(_LICENSE.fullmatch, ids)):
        name, link = ("".join(metadata.get(key, ())[:1]) for key in ("license_name", "license_link"))
        return License(ids, name if _LICENSE_NAME.fullmatch(name) else None, _link(link, facts))
    preset = next((preset for preset in PRESETS if preset.repo == facts.repo), None)
    return License((preset.license,), from_card=False) if preset else License()


def _link(text: str, facts: CardFacts) -> str | None:
    """An address, the name of a licence file beside the card, or the address of a file in the source's repository."""
    if len(text) <= MAX_LINK and _ADDRESS.fullmatch(text):
        return text
    file = _FILE.fullmatch(text) if len(text) <= MAX_LINK else None
    if file is None or file[1] in facts.license_files:
        return file and file[1]
    return f"{HUB}/{facts.repo}/blob/{facts.revision or 'main'}/{file[1]}" if facts.repo else None


def model_card(facts: CardFacts) -> str:
    """The text of README.md: metadata, description, origin, usage, fidelity, licence."""
    from huggingface_hub import ModelCardData

    metadata = read_metadata(facts.source_card)
    license, bases = license_of(facts, metadata), _bases(facts, metadata)
    sections = [
        f"# {_name(facts)}",
        _description(facts.config, facts.parameters),
        _origin(facts, bases),
        _usage(facts),
        facts.fidelity.strip() if facts.fidelity else "",
        _unquantized(facts.kept) if facts.quantization else "",
        _license_section(license, facts),
    ]
    is_conversion = facts.repo is not None or is_ours(metadata)  # of ``bases`` themselves
    relation = "quantized" if facts.quantization and bases and is_conversion else None
    head = ModelCardData(
        library_name=LIBRARY,
        pipeline_tag="zero-shot-image-classification" if facts.config.is_pair else "image-feature-extraction",
        base_model=_one_or_list(bases),
        base_model_relation="finetune" if facts.training and bases else relation,
        license=_one_or_list(license.ids),
        license_name=license.name,
        license_link=license.link,
        tags=list(TAGS),
    ).to_yaml()
    return f"{_FENCE}\n{head}\n{_FENCE}\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def _bases(facts: CardFacts, metadata: Metadata) -> tuple[str, ...]:
    """The repositories that the result is a conversion of: the source, or the source of the source."""
    stated = tuple(name for name in metadata.get("base_model", ()) if is_repo_name(name))
    if facts.repo is None or (is_ours(metadata) and stated):
        return stated
    return (facts.repo,)


def _one_or_list(texts: tuple[str, ...]) -> Any:
    return texts[0] if len(texts) == 1 else list(texts) or None


def _name(facts: CardFacts) -> str:
    """The name if it is safe in Markdown, Python and a shell; else a placeholder."""
    return facts.name if _NAME.fullmatch(facts.name) else "THIS-FOLDER"


def _description(config: AnyConfig, parameters: int) -> str:
    is_pair, vision = config.is_pair, config.vision
    kind = "image-text pair (LiT)" if is_pair else "vision encoder"
    size = "native resolution" if vision.is_native else f"{vision.image_size} x {vision.image_size} pixels"
    head = ", pooling head" if vision.use_head and not is_pair else ""
    return (
        f"An [AIMv2](https://arxiv.org/abs/2411.14402) {kind} in [MLX](https://github.com/ml-explore/mlx): {size},"
        f" patches of {vision.patch_size}, {vision.num_hidden_layers} layers of width {vision.hidden_size}{head},"
        f" {parameters:,} parameters."
    )


def _origin(facts: CardFacts, bases: tuple[str, ...]) -> str:
    source = f"[{facts.repo}]({HUB}/{facts.repo})" if facts.repo else facts.source
    source += f" at revision `{facts.revision}`" if facts.repo and facts.revision else ""
    if bases and bases != (facts.repo,):
        source += " (made from " + ", ".join(f"[{base}]({HUB}/{base})" for base in bases) + ")"
    trained = f" {facts.training}" if facts.training else ""
    lost = (
        f" The source's weights were {facts.unpacked_from}, and were unpacked." if facts.unpacked_from else ""
    )
    weights = f"{facts.quantization}, the rest {facts.dtype}" if facts.quantization else facts.dtype
    return (
        f"Converted by mlx-aimv2 {facts.version} from {source}, read in the layout `{facts.layout}`.{trained}"
        f" Weights: {weights}; {facts.bits_per_weight:.2f} bits per weight, {facts.nbytes / 1e6:,.1f} MB.{lost}"
    )


def _usage(facts: CardFacts) -> str:
    name = _name(facts)
    if facts.config.is_pair:
        kind, shell = "ZeroShotClassifier", 'classify photo.jpg --labels "a dog,a cat"'
        call = 'ZeroShotClassifier(model, processor, labels=["a dog", "a cat"])("photo.jpg")'
    else:
        kind, shell, call = "Embedder", "embed photo.jpg", 'Embedder(model, processor).images(["photo.jpg"])'
    return (
        "## Use\n\nInstall [mlx-aimv2](https://github.com/mlx-aimv2/mlx-aimv2), then\n\n"
        f'```python\nfrom mlx_aimv2 import {kind}, load\nmodel, processor = load("{name}")\nprint({call})\n```\n\n'
        f"or on the command line\n\n```\nmlx-aimv2 {shell} --model {name}\n```"
    )


def renamed(card: str, name: str) -> str:
    """The card with ``name`` in its title and usage; other text stays."""
    card = re.sub(r"(?m)\A(---\n(?:.*\n)*?---\n\n)# \S+$", rf"\g<1># {name}", card, count=1)
    card = re.sub(r'(?m)^(model, processor = load\(")[^"\n]*("\))$', rf"\g<1>{name}\g<2>", card, count=1)
    return re.sub(r"(?m)^(mlx-aimv2 (?:classify|embed) .* --model )\S+$", rf"\g<1>{name}", card, count=1)


def _unquantized(kept: Mapping[str, Sequence[str]]) -> str:
    rows = [f"- {reason}: `{fold_names(names)}`" for reason, names in kept.items()]
    return "## What is not quantized\n\n" + "\n".join(rows) if rows else ""


def _license_section(license: License, facts: CardFacts) -> str:
    source = f"[{facts.repo}]({HUB}/{facts.repo})" if facts.repo else "the source"
    stated = f"`{license.name or ', '.join(license.ids)}`"
    if not license.ids:
        text = (
            "The source states no licence, so none is named here: ask its makers before you use the weights."
        )
    elif not license.from_card:
        text = f"The weights of {source} are known to be under {stated}, which its card does not say."
    elif license.ids == ("other",) and license.name is None:
        text = f"The weights are under the terms of {source}, which have no name."
    else:
        text = f"The weights are under the licence of {source}: {stated}."
    names = [f"[{name}]({name})" for name in facts.license_files if _FILE.fullmatch(name)]
    if license.link and license.link not in facts.license_files:
        names.append(f"<{license.link}>")
    return f"## Licence\n\n{text}" + (f" See {', '.join(names)}." if names else "")
