"""The sides of this package: models, and what they are compared with in the same process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from suite import Setup


def load_model(setup: Setup, name: str, **options: Any) -> tuple[Any, Any]:
    """The model and the processor of a checkpoint in the folder for data, with fast decoding."""
    import warnings

    from mlx_aimv2 import load
    from mlx_aimv2.loading import LoadOptions
    from mlx_aimv2.processing.decode import DecodeOptions

    warnings.simplefilter("ignore")  # of unpacked weights
    return load(setup.folder / name, options=LoadOptions(decode=DecodeOptions(decode="fast"), **options))


@dataclass(frozen=True)
class Shares:
    """Random inputs of a layer, divided over the CPU streams as the forward pass is.

    Attributes:
        model: the vision encoder.
        streams: of the shares.
        inputs: of each share: tokens `x` (B, N, D), `inner` (B, N, inner), `q` and `k` (B, heads, N, d), and `scores`
            (B, heads, N, N); `k` and the last axis of `scores` have all tokens of an image.
    """

    model: Any
    streams: tuple[Any, ...]
    inputs: list[dict[str, Any]]

    @classmethod
    def of(cls, model: Any, batch: int, tokens: int) -> Shares:
        """Those of a batch of images with so many tokens."""
        import mlx.core as mx

        from mlx_aimv2.backend.streams import even_slices, streams_for

        config, dtype = model.config, model.rms_norm.weight.dtype
        dim, inner_dim, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
        streams = streams_for(batch * tokens * dim) or (mx.default_stream(mx.default_device()),)
        by_token = batch < len(streams)

        def share(part: slice) -> dict[str, Any]:
            count = part.stop - part.start
            rows, columns = (batch, count) if by_token else (count, tokens)
            shapes = {
                "x": (rows, columns, dim),
                "inner": (rows, columns, inner_dim),
                "q": (rows, heads, columns, dim // heads),
                "k": (rows, heads, tokens, dim // heads),
                "scores": (rows, heads, columns, tokens),
            }
            return {name: mx.random.normal(shape).astype(dtype) for name, shape in shapes.items()}

        inputs = [share(part) for part in even_slices(tokens if by_token else batch, len(streams))]
        mx.eval(inputs)
        return cls(model, streams, inputs)

    def run(self, part: Callable[[Any, dict[str, Any]], list[Any]]) -> None:
        """Compute a part, from a layer and inputs to arrays, of every layer, so that memory is reused as there."""
        import mlx.core as mx

        for layer in self.model.encoder.layers:
            results = []
            for stream, own in zip(self.streams, self.inputs, strict=True):
                with mx.stream(stream):
                    results.append(part(layer, own))
            # MLX evaluates in this order: the streams in turns, so that none waits for another
            mx.eval([x for alike in zip(*results, strict=True) for x in alike])


def square_products(layer: Any, own: dict[str, Any]) -> list[Any]:
    """Projections to queries, keys, values, and of the mixed values."""
    attention = layer.attention
    linears = (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj)
    return [own["x"] @ linear.weight.T for linear in linears]


def wide_products(layer: Any, own: dict[str, Any]) -> list[Any]:
    """Gate and up."""
    return [own["x"] @ linear.weight.T for linear in (layer.ffn.gate_proj, layer.ffn.up_proj)]


def down_products(layer: Any, own: dict[str, Any]) -> list[Any]:
    """Down."""
    return [own["inner"] @ layer.ffn.down_proj.weight.T]


def attention_products(layer: Any, own: dict[str, Any]) -> list[Any]:
    """Scores, and mixed values."""
    return [own["q"] @ own["k"].swapaxes(-1, -2), own["scores"] @ own["k"]]


PRODUCTS = (square_products, wide_products, attention_products, down_products)


def matrix_products(model: Any, batch: int, tokens: int) -> tuple[Callable[[], None], float]:
    """All matrix products of a forward pass, with the model's weights and random inputs.

    Returns:
        A function that computes them, and the floating-point operations of that.
    """
    import mlx.core as mx

    config, shares = model.config, Shares.of(model, batch, tokens)
    dim, inner_dim = config.hidden_size, config.intermediate_size
    patches = mx.random.normal((batch, tokens, config.patch_size**2 * 3)).astype(model.rms_norm.weight.dtype)
    kernel = model.embeddings.patch_embed.weight.reshape(dim, -1)
    mx.eval(patches, kernel)

    def products() -> None:
        mx.eval(patches @ kernel.T)
        shares.run(lambda layer, own: [x for part in PRODUCTS for x in part(layer, own)])

    per_layer = 2 * tokens * dim * (4 * dim + 3 * inner_dim + 2 * tokens)
    patch_operations = 2 * tokens * config.patch_size**2 * 3 * dim
    return products, batch * (config.num_hidden_layers * per_layer + patch_operations)


def least_bytes(model: Any, batch: int, tokens: int) -> dict[str, int]:
    """Bytes of the weights, and of the activations that a forward pass must hold at once."""
    from mlx.utils import tree_flatten

    config = model.config
    weights = sum(x.nbytes for _, x in tree_flatten(model.parameters()))
    width = model.rms_norm.weight.dtype.size
    # in the MLP: the residual, its norm, gate and up; in attention: the residual, q, k, v, scores and mixed values
    mlp = tokens * (2 * config.hidden_size + 2 * config.intermediate_size)
    attention = tokens * (5 * config.hidden_size + config.num_attention_heads * tokens)
    pixels = 4 * batch * tokens * config.patch_size**2 * 3
    return {"weights": weights, "activations": pixels + width * batch * max(mlp, attention)}
