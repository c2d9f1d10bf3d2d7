"""The published checkpoints as a table: short name, repository, pinned commit, shape, size, accuracy.

The table serves short names, the list of models, size estimates and suggestions in error messages. How a checkpoint
is read depends on its files alone.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, cast

from .errors import InputError

DEFAULT_MODEL = "lit"  # the short name, and so the pinned commit
DEMO_MODEL = "demo"  # inside the package: see `checkpoints.bundled`
BITS_FLOAT32 = 32.0  # as the weights are published
BITS_FLOAT16 = 16.0
BITS_AFFINE_4 = 4.5  # 4 bits, and a float16 scale and bias for each group of 64 weights

PATCH_SIZE = 14
PATCH_RANGE = (112, 4096)  # the sequence lengths that the native-resolution checkpoint was trained on

Size = Literal["large", "huge", "1B", "3B"]


@dataclass(frozen=True)
class Trunk:
    """The shape of a transformer, vision or text. Attention heads are 128 wide."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int

    @property
    def linear_weights(self) -> int:
        """Weights of the Linear layers (four of attention, three of feed-forward, none with a bias)."""
        block = 4 * self.hidden_size**2 + 3 * self.hidden_size * self.intermediate_size
        return self.num_hidden_layers * block


TRUNKS: MappingProxyType[Size, Trunk] = MappingProxyType(
    {
        "large": Trunk(1024, 2816, 24, 8),
        "huge": Trunk(1536, 4096, 24, 12),
        "1B": Trunk(2048, 5632, 24, 16),
        "3B": Trunk(3072, 8192, 24, 24),
    }
)
_TEXT_TRUNK = Trunk(768, 2048, 12, 6)
_VOCABULARY_SIZE = 49408


@dataclass(frozen=True)
class Preset:
    """A published checkpoint.

    Attributes:
        name: the short name, as ``--model`` takes it.
        repo: the repository on the Hub, ``owner/name``.
        revision: the commit that the short names stand for, with Apple's original files; None for the main branch.
        size: the row of ``TRUNKS``.
        image_size: side of the square input in pixels; None for native resolution.
        parameters: exact number of weights, all towers together.
        top1: published ImageNet-1k top-1 in percent: frozen trunk, or zero-shot for the image-text pair.
        has_text: whether it has a text tower, and so a tokenizer, a pooling head and two projections.
        license: of the weights, where the repository's card states none.
        extra_aliases: names beside those that follow from ``name`` and ``repo``.
    """

    name: str
    repo: str
    revision: str | None
    size: Size
    image_size: int | None
    parameters: int
    top1: float | None
    has_text: bool = False
    license: str = "apple-amlr"
    extra_aliases: tuple[str, ...] = ()

    @property
    def trunk(self) -> Trunk:
        """Shape of the vision tower."""
        return TRUNKS[self.size]

    @property
    def num_patches(self) -> int | None:
        """Tokens per image; None for native resolution, where the number varies."""
        return None if self.image_size is None else (self.image_size // PATCH_SIZE) ** 2

    @property
    def quantizable(self) -> int:
        """Weights that quantization packs: the Linear layers of the towers, and the token embedding.

        The others keep 16 bits: patch convolution, norms, position tables, pooling head, the two projections into
        the shared space, and the logit scale.
        """
        if not self.has_text:
            return self.trunk.linear_weights
        token_embedding = _VOCABULARY_SIZE * _TEXT_TRUNK.hidden_size
        return self.trunk.linear_weights + _TEXT_TRUNK.linear_weights + token_embedding

    def bytes_at(self, bits: float) -> int:
        """Memory of the weights in bytes, computed from the architecture.

        Args:
            bits: per quantizable weight: 32 for float32, 16 for float16 and bfloat16, 4.5 for 4-bit affine
                quantization in groups of 64. Below 16, the weights that are not quantizable count 16.

        Raises:
            InputError: ``bits`` is not above 0 and at most 64.
        """
        if not 0 < bits <= 64:
            raise InputError(f"bits per weight must be above 0 and at most 64, not {bits!r}")
        kept = self.parameters - self.quantizable
        return round((self.quantizable * bits + kept * max(bits, BITS_FLOAT16)) / 8)

    @property
    def aliases(self) -> frozenset[str]:
        """All names of this checkpoint, in lower case."""
        bare = self.repo.rpartition("/")[2]
        names = (self.name, self.repo, bare, bare.removeprefix("aimv2-"), *self.extra_aliases)
        return frozenset(name.lower() for name in names)

    def revision_of(self, name: str) -> str | None:
        """The commit that an alias stands for; None for the name of the repository, which means its main branch."""
        return None if name.strip().lower() == self.repo.lower() else self.revision


_FIXED = (  # name, commit, weights, top-1
    ("large-224", "ac764a25c832c7dc5e11871daa588e98e3cdbfb7", 309_197_824, 86.6),
    ("huge-224", "9e0bab0e0abb7b20796d2d0b37f39b7c3b1c1af1", 680_851_968, 87.5),
    ("1B-224", "4d24a422f71e87d327d476bc405030fe6593d8b1", 1_234_958_336, 88.1),
    ("3B-224", "df1cbc288096c9742ec8bd6709ff82757972338c", 2_720_658_432, 88.5),
    ("large-336", "639423ae9f07319d24a7fc431b61908110d08d3a", 309_525_504, 87.6),
    ("huge-336", "21528bd53a2438a84162e79f1f9a46453b88004c", 681_343_488, 88.2),
    ("1B-336", "5a15f23f6757776fdd487283353a018677621939", 1_235_613_696, 88.7),
    ("3B-336", "d1adb39ee92dfd7ecf3114b1ee3aa7e9027ce98f", 2_721_641_472, 89.2),
    ("large-448", "cefb13f21003bdadba65bfbee956c82b976cd23d", 309_984_256, 87.9),
    ("huge-448", "44e6440a24a8ea966ad0deadf5399a22d852bcc0", 682_031_616, 88.6),
    ("1B-448", "7f292735d3a07a911559c0fabb3ad3e9d141713f", 1_236_531_200, 89.0),
    ("3B-448", "70810b618e4456b724bacc8ef4d2d038060ceda6", 2_723_017_728, 89.5),
    ("large-224-distilled", "d6d09b071e8ba31735c5e05ccd4b2a393020ce90", 309_197_824, None),
    ("large-336-distilled", "8fe1704e5cc1c80cefc99c194afcefe21dff1faa", 309_525_504, None),
)


def _apple(name: str, revision: str, parameters: int, top1: float | None) -> Preset:
    """A vision checkpoint of Apple with a fixed image size."""
    size, image_size = name.split("-")[:2]
    repo = f"apple/aimv2-{name.replace('-', '-patch14-', 1)}"
    return Preset(name, repo, revision, cast(Size, size), int(image_size), parameters, top1)


# fmt: off
_APPLE = (
    *(_apple(*row) for row in _FIXED),
    Preset("native", "apple/aimv2-large-patch14-native", "cfe7bdbbc924a5f65272d5e2c27fe5f61771a629",
           "large", None, 308_935_680, 87.3, extra_aliases=("large-native",)),
    Preset("lit", "apple/aimv2-large-patch14-224-lit", "c2cd59a786c4c06f39d199c50d08cc2eab9f8605",
           "large", 224, 436_680_193, 77.0, has_text=True, extra_aliases=("large-lit", "large-224-lit")),
)
# fmt: on


def _timm(original: Preset) -> Preset:
    """timm's copy of a vision checkpoint of fixed size."""
    suffix = "apple_pt_dist" if original.name.endswith("-distilled") else "apple_pt"
    repo = f"timm/aimv2_{original.size.lower()}_patch14_{original.image_size}.{suffix}"
    return replace(original, name=f"timm-{original.name}", repo=repo, revision=None)


PRESETS: tuple[Preset, ...] = (
    *_APPLE,
    *(_timm(row) for row in _APPLE if row.image_size is not None and not row.has_text),
)
_BY_ALIAS = MappingProxyType({alias: preset for preset in PRESETS for alias in preset.aliases})


def find(name: str) -> Preset | None:
    """The preset of a short name, an alias or a repository, in any case; None if there is none."""
    return _BY_ALIAS.get(name.strip().lower())


def suggest(name: str) -> list[str]:
    """Up to three short names that resemble ``name``, best first."""
    known = {alias: preset.name for alias, preset in _BY_ALIAS.items()} | {DEMO_MODEL: DEMO_MODEL}
    close = difflib.get_close_matches(name.strip().lower(), known, n=6, cutoff=0.6)
    return list(dict.fromkeys(known[alias] for alias in close))[:3]
