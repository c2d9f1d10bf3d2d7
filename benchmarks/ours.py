"""The sides of this package: models, and what they are compared with in the same process."""

from __future__ import annotations

from collections.abc import Callable
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


def matrix_products(model: Any, batch: int, tokens: int) -> tuple[Callable[[], None], float]:
    """All matrix products of a forward pass, with the model's weights and random inputs.

    They are divided over the CPU streams as the forward pass is, and evaluated layer by layer, so that memory is
    reused as there.

    Returns:
        A function that computes them, and the floating-point operations of that.
    """
    import mlx.core as mx

    from mlx_aimv2.backend.streams import even_slices, streams_for

    config, dtype = model.config, model.rms_norm.weight.dtype
    dim, inner_dim, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    streams = streams_for(batch * tokens * dim) or (mx.default_stream(mx.default_device()),)
    by_token = batch < len(streams)

    def noise(*shape: int) -> mx.array:
        return mx.random.normal(shape).astype(dtype)

    def share(part: slice) -> dict[str, mx.array]:
        """The inputs of one stream."""
        count = part.stop - part.start
        rows, columns = (batch, count) if by_token else (count, tokens)
        return {
            "x": noise(rows, columns, dim),
            "inner": noise(rows, columns, inner_dim),
            "q": noise(rows, heads, columns, dim // heads),
            "k": noise(rows, heads, tokens, dim // heads),
            "scores": noise(rows, heads, columns, tokens),
        }

    shares = [share(part) for part in even_slices(tokens if by_token else batch, len(streams))]
    patches = noise(batch, tokens, config.patch_size**2 * 3)
    kernel = model.embeddings.patch_embed.weight.reshape(dim, -1)
    mx.eval(shares, patches, kernel)

    def products() -> None:
        mx.eval(patches @ kernel.T)
        for layer in model.encoder.layers:
            attention, ffn = layer.attention, layer.ffn
            linears = (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj)
            results = []
            for stream, own in zip(streams, shares, strict=True):
                with mx.stream(stream):
                    results += [
                        own["x"] @ linear.weight.T for linear in (*linears, ffn.gate_proj, ffn.up_proj)
                    ]
                    results += [own["inner"] @ ffn.down_proj.weight.T, own["q"] @ own["k"].swapaxes(-1, -2)]
                    results.append(own["scores"] @ own["k"])
            mx.eval(results)

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
