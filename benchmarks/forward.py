"""Duration of a forward pass, compared with its matrix products alone and with transformers.

Each side runs in its own process, in turns: the BLAS that is loaded globally for MLX slows torch down in the same
process. The matrix products are timed in the process of the forward pass. Prints medians; quote ratios, because
machines differ and are noisy.

    pip install 'mlx-aimv2[bench]'
    python benchmarks/forward.py [--rounds 3] [--repeats 5] [--batch 1] [--no-transformers]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time


def median_seconds(run, repeats):
    run()  # compiles, allocates
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure_mlx(batch, repeats):
    from mlx_aimv2 import Aimv2VisionConfig, Aimv2VisionModel  # first: it loads the BLAS

    import mlx.core as mx  # isort: skip

    from mlx_aimv2.backend.blas import load_blas
    from mlx_aimv2.backend.device import compute_dtype

    config = Aimv2VisionConfig(use_head=False)
    model = Aimv2VisionModel(config)
    model.set_dtype(compute_dtype(None))
    model.eval()
    pixels = mx.random.normal((batch, config.image_size, config.image_size, 3))
    mx.eval(model.parameters(), pixels)
    products = matrix_products(model, config, batch)
    return {
        "forward": median_seconds(lambda: mx.eval(model(pixels).last_hidden_state), repeats),
        "matrix products": median_seconds(products, repeats),
        "BLAS": str(load_blas()),
        "dtype": str(compute_dtype(None)),
    }


def matrix_products(model, config, batch):
    """All matrix products of a forward pass, with the model's weights and random inputs.

    They are evaluated layer by layer, so that memory is reused as in a forward pass.
    """
    import mlx.core as mx

    dtype = model.rms_norm.weight.dtype
    tokens, dim, heads = config.grid**2, config.hidden_size, config.num_attention_heads

    def noise(*shape):
        return mx.random.normal(shape).astype(dtype)

    x, inner = noise(batch, tokens, dim), noise(batch, tokens, config.intermediate_size)
    q, scores = noise(batch, heads, tokens, dim // heads), noise(batch, heads, tokens, tokens)
    patches = noise(batch, tokens, config.patch_size**2 * 3)
    kernel = model.embeddings.patch_embed.weight.reshape(dim, -1)
    mx.eval(x, inner, q, scores, patches, kernel)

    def products():
        mx.eval(patches @ kernel.T)
        for layer in model.encoder.layers:
            attention, ffn = layer.attention, layer.ffn
            linears = (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj)
            results = [x @ linear.weight.T for linear in (*linears, ffn.gate_proj, ffn.up_proj)]
            mx.eval(*results, inner @ ffn.down_proj.weight.T, q @ q.swapaxes(-1, -2), scores @ q)

    return products


def measure_transformers(batch, repeats):
    import torch
    from transformers import Aimv2VisionConfig, Aimv2VisionModel

    model = Aimv2VisionModel(Aimv2VisionConfig(use_head=False)).eval()
    pixels = torch.randn(batch, 3, 224, 224)
    with torch.inference_mode():
        return {"forward": median_seconds(lambda: model(pixels), repeats), "threads": torch.get_num_threads()}


MEASURES = {"mlx": measure_mlx, "transformers": measure_transformers}


def in_own_process(side, arguments):
    command = [sys.executable, __file__, "--side", side]
    command += ["--batch", str(arguments.batch), "--repeats", str(arguments.repeats)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--no-transformers", action="store_true")
    parser.add_argument("--side", choices=MEASURES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(MEASURES[arguments.side](arguments.batch, arguments.repeats)))
        return
    sides = ["mlx"] if arguments.no_transformers else ["mlx", "transformers"]
    results = {side: [] for side in sides}
    for _ in range(arguments.rounds):
        for side in sides:
            results[side].append(in_own_process(side, arguments))
    forward = statistics.median(r["forward"] for r in results["mlx"])
    products = statistics.median(r["matrix products"] for r in results["mlx"])
    first = results["mlx"][0]
    print(
        f"large-224, batch {arguments.batch}, {first['dtype']}, BLAS {first['BLAS']}, {arguments.rounds} rounds"
    )
    print(f"{'forward':24} {forward:7.3f} s")
    print(f"{'matrix products alone':24} {products:7.3f} s   forward is {forward / products:.2f} times that")
    if "transformers" in results:
        peer = statistics.median(r["forward"] for r in results["transformers"])
        print(f"{'transformers float32':24} {peer:7.3f} s   forward is {forward / peer:.2f} times that")


if __name__ == "__main__":
    main()
