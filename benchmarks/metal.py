"""What a forward pass costs on Metal, counted on any machine: kernels, bytes, FLOPs, and the least time on each chip.

The graph of the model is traced as on a GPU (`metal_graph.py`), and the kernels that MLX's Metal backend launches for
it are counted (`metal_kernels.py`). The times are computed from published bandwidths and rates, not measured:

- floor: reading the weights once, or the products at the full rate, whichever is longer;
- as launched: the same for every kernel with all its operands, added up.

Time between kernels is not in either. Models of one and two layers give a layer and the rest.

    python benchmarks/metal.py [--size large] [--image-size 224] [--batch 1 8 32] [--kernels]
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter

LAYERS = 24  # of every published size
MODELS = {"float16": None, "4-bit": 4}
CLASSIC_FLOPS, NEURAL_FLOPS = 256, 1024  # float16, of a core in a cycle


@dataclasses.dataclass(frozen=True)
class Chip:
    """A chip with all its GPU cores: bandwidth in GB/s, clock of the GPU in GHz, FLOPs of a core in a cycle."""

    cores: int
    bandwidth: float
    clock: float
    flops: int = CLASSIC_FLOPS

    @property
    def teraflops(self):
        return self.cores * self.flops * self.clock / 1000

    def seconds(self, nbytes, flops):
        return max(nbytes / self.bandwidth / 1e9, flops / self.teraflops / 1e12)


# Bandwidths: Apple's announcements. Clocks and FLOPs: docs/performance.md names the sources.
CHIPS = {
    "M1": Chip(8, 68, 1.278),
    "M1 Pro": Chip(16, 200, 1.296),
    "M1 Max": Chip(32, 400, 1.296),
    "M1 Ultra": Chip(64, 800, 1.296),
    "M2": Chip(10, 100, 1.398),
    "M2 Pro": Chip(19, 200, 1.398),
    "M2 Max": Chip(38, 400, 1.398),
    "M2 Ultra": Chip(76, 800, 1.398),
    "M3": Chip(10, 100, 1.398),
    "M3 Pro": Chip(18, 150, 1.398),
    "M3 Max": Chip(40, 400, 1.398),
    "M3 Ultra": Chip(80, 819, 1.398),
    "M4": Chip(10, 120, 1.578),
    "M4 Pro": Chip(20, 273, 1.578),
    "M4 Max": Chip(40, 546, 1.578),
    "M5": Chip(10, 153, 1.578, NEURAL_FLOPS),
    "M5 Pro": Chip(20, 307, 1.578, NEURAL_FLOPS),
    "M5 Max": Chip(40, 614, 1.578, NEURAL_FLOPS),
}


def gpu_of(name):
    """What MLX's choice of kernels knows of a chip."""
    from metal_kernels import Gpu

    wide = name.endswith(("Max", "Ultra"))
    return Gpu(split_tiles=2048 if wide else 1024, is_neural=CHIPS[name].flops == NEURAL_FLOPS)


def trace_cases(size, image_size, batches):
    """For each kind of weights and batch, the graphs of an image encoder with one and with two layers."""
    import mlx_aimv2  # noqa: F401  # first: it loads the BLAS

    from metal_graph import as_gpu, trace  # isort: skip

    cases = {}
    with as_gpu() as marks:
        for name, bits in MODELS.items():
            models = [random_model(size, image_size, layers, bits) for layers in (1, 2)]
            for batch in batches:
                cases[name, batch] = [trace(*call_of(model, batch), marks=marks) for model in models]
    return cases


def random_model(size, image_size, layers, bits):
    """An image encoder with few layers and random weights, packed if ``bits`` is not None."""
    import mlx.core as mx
    import mlx.nn as nn

    from mlx_aimv2 import Aimv2VisionConfig, Aimv2VisionModel
    from mlx_aimv2.models.joint_product import join_projections
    from mlx_aimv2.presets import TRUNKS

    shape = dataclasses.asdict(TRUNKS[size]) | {"num_hidden_layers": layers}
    model = Aimv2VisionModel(Aimv2VisionConfig(**shape, image_size=image_size, use_head=False))
    model.set_dtype(mx.float16)
    if bits:
        nn.quantize(model, bits=bits)
    join_projections(model)
    model.eval()
    mx.eval(model.parameters())
    return model


def call_of(model, batch):
    """The forward pass of a model, and its input."""
    import mlx.core as mx

    size, channels = model.config.image_size, model.config.num_channels
    return lambda pixels: model(pixels).last_hidden_state, mx.zeros((batch, size, size, channels))


def layer_and_rest(graphs, chip):
    """The kernels of one layer, and those before the first and after the last."""
    from metal_kernels import kernels_of

    one, two = (kernels_of(graph, gpu_of(chip)) for graph in graphs)
    layer = Counter(two)
    layer.subtract(one)
    if min(layer.values()) < 0:
        raise ValueError("the second layer changes the kernels of the first: count whole models instead")
    rest = Counter(one)
    rest.subtract(layer)
    return list(layer.elements()), list(rest.elements())


def totals(kernels):
    """Launches, and sums over the kernels."""
    return [len(kernels), *(sum(getattr(kernel, name) for kernel in kernels)
                            for name in ("weights", "read", "written", "flops"))]  # fmt: skip


def print_counts(cases):
    print(f"{'':22}{'kernels':>8}{'weights':>10}{'read':>10}{'written':>10}{'products':>10}")
    print(f"{'':22}{'':8}{'MB':>10}{'MB':>10}{'MB':>10}{'GFLOP':>10}")
    for (model, batch), graphs in cases.items():
        layer, rest = layer_and_rest(graphs, "M1")
        for part, kernels in (("layer", layer), ("rest", rest), ("model", layer * LAYERS + rest)):
            launches, *sizes, flops = totals(kernels)
            print(f"{model:8} x{batch:<3}{part:>9} {launches:8}", end="")
            print(*(f"{size / 1e6:10.1f}" for size in sizes), f"{flops / 1e9:9.1f}", sep="")


def times(graphs, name):
    """Seconds of a batch on a chip: the floor, and as launched."""
    layer, rest = layer_and_rest(graphs, name)
    kernels = layer * LAYERS + rest
    _, weights, _, _, flops = totals(kernels)
    chip = CHIPS[name]
    return chip.seconds(weights, flops), sum(chip.seconds(kernel.bytes, kernel.flops) for kernel in kernels)


def print_times(cases):
    print(f"{'ms an image: floor / as launched':34}", *(f"{f'{m} x{b}':>19}" for m, b in cases), sep="")
    for name, chip in CHIPS.items():
        print(f"{name:10}{chip.bandwidth:6} GB/s {chip.teraflops:5.1f} TFLOPS", end="")
        for (_, batch), graphs in cases.items():
            each = (f"{1000 * seconds / batch:.2f}" for seconds in times(graphs, name))
            print(f"{' / '.join(each):>19}", end="")
        print()


def print_kernels(cases):
    for (model, batch), graphs in cases.items():
        for title, kernels in zip(("one layer", "the rest"), layer_and_rest(graphs, "M1"), strict=True):
            print(f"\n{model} x{batch}, {title}: MB of weights, read, written")
            for kernel, count in Counter(kernels).items():
                sizes = (f"{size / 1e6:8.2f}" for size in (kernel.weights, kernel.read, kernel.written))
                print(f"  {count} x", *sizes, f" {kernel.name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=["large", "huge", "1B", "3B"], default="large")
    parser.add_argument("--image-size", type=int, default=224, help="in pixels")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--kernels", action="store_true", help="also list the kernels")
    arguments = parser.parse_args()
    cases = trace_cases(arguments.size, arguments.image_size, arguments.batch)
    print_counts(cases)
    print()
    print_times(cases)
    if arguments.kernels:
        print_kernels(cases)


if __name__ == "__main__":
    main()
