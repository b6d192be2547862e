"""What the hand-written layer costs, compared with nn.Conv2d on equal inputs."""

import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from src.common.project import FAST
from src.common.results import record_results
from src.common.tables import markdown_table
from src.conv import Conv2d

# Without this the profiler tells about its own start and stop on stderr.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

# Processor time, which other programs don't add to, where its clock is fine enough.
_fine = time.get_clock_info("process_time").resolution < 1e-4
_seconds = time.process_time if _fine else time.perf_counter


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

    def images(self, batch_size: int) -> Tensor:
        """Random images [B, C, H, W] for this layer."""
        return torch.randn(batch_size, self.in_channels, *self.image_size)


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
class Cost:
    """Of one forward and backward pass."""

    seconds: float
    bytes: int  # the most held at once: output, gradients, everything in between


@dataclass(frozen=True)
class LayerCosts:
    """What one layer shape costs with our layer and with nn.Conv2d."""

    shape: LayerShape
    ours: Cost
    theirs: Cost

    @property
    def time_ratio(self) -> float:
        """Our time over nn.Conv2d's."""
        return self.ours.seconds / self.theirs.seconds

    @property
    def memory_ratio(self) -> float:
        """Our peak memory over nn.Conv2d's."""
        return self.ours.bytes / self.theirs.bytes


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
    layers, images = shape.pair(), shape.images(batch_size)
    output_grad = torch.randn_like(layers[1](images))

    def run(layer: nn.Module) -> None:
        forward_backward(layer, images, output_grad)

    peaks = [peak_bytes(lambda layer=layer: run(layer)) for layer in layers]
    seconds = [[], []]
    for _ in range(1 + repetitions):
        for times, layer in zip(seconds, layers, strict=True):
            start = _seconds()
            run(layer)
            times.append(_seconds() - start)
    medians = [statistics.median(times[1:]) for times in seconds]
    return LayerCosts(shape, *map(Cost, medians, peaks))


def peak_bytes(action: Callable[[], object]) -> int:
    """Most bytes that `action` held on the CPU at one time, above those held before.

    Read off the profiler's trace, which also sees what oneDNN allocates inside
    nn.Conv2d. An `action` that allocates nothing gives 0.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = [event for event in events if event["name"] == "[memory]"]
    changes.sort(key=lambda event: event["ts"])
    sizes = (change["args"]["Bytes"] for change in changes)
    return max(itertools.accumulate(sizes, initial=0))


def cost_table(costs: Benchmark) -> str:
    """A Markdown table: milliseconds and ratios of every layer, and the means."""
    rows = [
        [
            f"`{layer.shape}`",
            f"{1e3 * layer.ours.seconds:.1f} ms",
            f"{1e3 * layer.theirs.seconds:.1f} ms",
            f"{layer.time_ratio:.2f}×",
            f"{layer.memory_ratio:.2f}×",
        ]
        for layer in costs.layers
    ]
    means = [f"**{ratio:.2f}×**" for ratio in (costs.time_ratio, costs.memory_ratio)]
    rows.append(["**geometric mean**", "", "", *means])
    return markdown_table(["layer", "ours", "`nn.Conv2d`", "time", "memory"], rows)


def record(
    largest: dict[str, float], cases: int, gradcheck: bool, costs: Benchmark
) -> None:
    """Record what question 1 found.

    largest: over all `cases`, the largest difference of each quantity compared.
    """
    layers = {
        str(layer.shape): {
            "time_ratio": layer.time_ratio,
            "memory_ratio": layer.memory_ratio,
        }
        for layer in costs.layers
    }
    convolution = {
        "largest_differences_float64": largest,
        "cases": cases,
        "gradcheck": gradcheck,
        "batch_size": costs.batch_size,
        "time_ratio": costs.time_ratio,
        "memory_ratio": costs.memory_ratio,
        "layers": layers,
    }
    record_results("q1", convolution=convolution)
