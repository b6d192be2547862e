"""What the hand-written layer costs, compared with nn.Conv2d on equal inputs."""

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from src.common.project import FAST
from src.common.results import record_results
from src.common.tables import markdown_table
from src.conv import Conv2d

# Without this the profiler tells about its own start and stop on stderr.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

# Processor time, which other programs don't add to; Windows counts it too coarsely.
_seconds = time.perf_counter if os.name == "nt" else time.process_time


@dataclass(frozen=True)
class LayerShape:
    """A convolution and the height and width of the images that it is given."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: int
    padding: int
    image_size: tuple[int, int]

    def __str__(self) -> str:
        height, width = self.kernel_size
        step = f", stride {self.stride}" if self.stride > 1 else ""
        channels = f"{self.in_channels}→{self.out_channels}"
        return f"{channels}, {height}×{width}{step}, {self.image_size[0]} px"

    def pair(self) -> tuple[Conv2d, nn.Conv2d]:
        """Our layer and nn.Conv2d."""
        channels = self.in_channels, self.out_channels
        window = self.kernel_size, self.stride, self.padding
        return Conv2d(*channels, *window), nn.Conv2d(*channels, *window)


#: The distinct convolutions of torchvision's ResNet-18 on 224×224 images.
RESNET18_LAYERS = (
    LayerShape(3, 64, (7, 7), 2, 3, (224, 224)),
    LayerShape(64, 64, (3, 3), 1, 1, (56, 56)),
    LayerShape(64, 128, (3, 3), 2, 1, (56, 56)),
    LayerShape(64, 128, (1, 1), 2, 0, (56, 56)),
    LayerShape(128, 128, (3, 3), 1, 1, (28, 28)),
    LayerShape(128, 256, (3, 3), 2, 1, (28, 28)),
    LayerShape(128, 256, (1, 1), 2, 0, (28, 28)),
    LayerShape(256, 256, (3, 3), 1, 1, (14, 14)),
    LayerShape(256, 512, (3, 3), 2, 1, (14, 14)),
    LayerShape(256, 512, (1, 1), 2, 0, (14, 14)),
    LayerShape(512, 512, (3, 3), 1, 1, (7, 7)),
)


def forward_backward(
    layer: nn.Module, images: Tensor, output_grad: Tensor
) -> tuple[Tensor, ...]:
    """Output, and the gradients by images, weight and bias, from the output's."""
    images = images.detach().requires_grad_()
    output = layer(images)
    inputs = (images, layer.weight, layer.bias)
    return output, *torch.autograd.grad(output, inputs, output_grad)


@dataclass(frozen=True)
class LayerCosts:
    """What a forward and backward pass costs with our layer and with nn.Conv2d."""

    shape: LayerShape
    seconds: tuple[float, float]  # ours, theirs
    peaks: tuple[int, int]  # the most bytes held at once: output, gradients and all

    @property
    def time_ratio(self) -> float:
        """Our time over nn.Conv2d's."""
        return self.seconds[0] / self.seconds[1]

    @property
    def memory_ratio(self) -> float:
        """Our peak memory over nn.Conv2d's."""
        return self.peaks[0] / self.peaks[1]


@dataclass(frozen=True)
class Benchmark:
    """The costs of every layer shape, and the geometric means of their ratios."""

    layers: tuple[LayerCosts, ...]
    batch_size: int

    @property
    def time_ratio(self) -> float:
        return statistics.geometric_mean(layer.time_ratio for layer in self.layers)

    @property
    def memory_ratio(self) -> float:
        return statistics.geometric_mean(layer.memory_ratio for layer in self.layers)


def benchmark(
    shapes: Iterable[LayerShape] = RESNET18_LAYERS,
    *,
    batch_size: int = 8,
    repetitions: int = 1 if FAST else 3,
) -> Benchmark:
    """Time and peak memory of both layers, forward and backward, in float32.

    The two layers take turns on one core of the CPU, so that a busy computer slows both
    down alike. Times are medians of processor time over `repetitions` turns, after one
    that warms up; memory is the peak of one turn.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        costs = (_layer_costs(shape, batch_size, repetitions) for shape in shapes)
        return Benchmark(tuple(costs), batch_size)
    finally:
        torch.set_num_threads(threads)


def _layer_costs(shape: LayerShape, batch_size: int, repetitions: int) -> LayerCosts:
    layers = shape.pair()
    images = torch.randn(batch_size, shape.in_channels, *shape.image_size)
    output_grad = torch.randn_like(layers[1](images))

    def run(layer: nn.Module) -> None:
        forward_backward(layer, images, output_grad)

    peaks = tuple(peak_bytes(partial(run, layer)) for layer in layers)
    seconds = [[], []]
    for _ in range(1 + repetitions):
        for times, layer in zip(seconds, layers, strict=True):
            start = _seconds()
            run(layer)
            times.append(_seconds() - start)
    medians = tuple(statistics.median(times[1:]) for times in seconds)
    return LayerCosts(shape, medians, peaks)


def peak_bytes(action: Callable[[], object]) -> int:
    """Most bytes that `action` held on the CPU at one time, above those held before.

    Read off the profiler's events, which also tell what oneDNN allocates inside
    nn.Conv2d. An `action` that allocates nothing gives 0.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    events = profiler.profiler.kineto_results.events()
    changes = [event for event in events if event.name() == "[memory]"]
    changes.sort(key=lambda change: change.start_ns())
    sizes = (change.nbytes() for change in changes)
    return max(itertools.accumulate(sizes, initial=0))


def cost_table(costs: Benchmark) -> str:
    """A Markdown table: milliseconds and ratios of every layer, and the means."""
    rows = [
        [
            f"`{layer.shape}`",
            *(f"{1e3 * seconds:.1f} ms" for seconds in layer.seconds),
            *(f"{ratio:.2f}×" for ratio in (layer.time_ratio, layer.memory_ratio)),
        ]
        for layer in costs.layers
    ]
    means = [f"**{ratio:.2f}×**" for ratio in (costs.time_ratio, costs.memory_ratio)]
    rows.append(["**geometric mean**", "", "", *means])
    return markdown_table(["layer", "ours", "`nn.Conv2d`", "time", "memory"], rows)


def ratios(costs: LayerCosts | Benchmark) -> dict[str, float]:
    """What results.json keeps of costs."""
    return {"time_ratio": costs.time_ratio, "memory_ratio": costs.memory_ratio}


def record(
    largest: dict[str, float], cases: int, gradcheck: bool, costs: Benchmark
) -> None:
    """Record what question 1 found.

    largest: over all `cases`, the largest difference of each quantity compared.
    """
    convolution = {
        "largest_differences_float64": largest,
        "cases": cases,
        "gradcheck": gradcheck,
        "batch_size": costs.batch_size,
        **ratios(costs),
        "layers": {str(layer.shape): ratios(layer) for layer in costs.layers},
    }
    record_results("q1", convolution=convolution)
