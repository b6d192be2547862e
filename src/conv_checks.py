"""How the hand-written layer compares with nn.Conv2d, on equal weights and inputs."""

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

from src.common.project import SEED
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

    def pair(self, dtype: torch.dtype) -> tuple[Conv2d, nn.Conv2d]:
        """Our layer and nn.Conv2d, with the same weights and bias."""
        channels = self.in_channels, self.out_channels
        window = self.kernel_size, self.stride, self.padding
        ours = Conv2d(*channels, *window).to(dtype)
        theirs = nn.Conv2d(*channels, *window).to(dtype)
        ours.load_state_dict(theirs.state_dict())
        return ours, theirs

    def images(self, batch_size: int, dtype: torch.dtype) -> Tensor:
        """Random images [B, C, H, W] for this layer."""
        return torch.randn(batch_size, self.in_channels, *self.image_size, dtype=dtype)


#: From the simplest layer to one in which all sizes differ.
CASES = {
    "1×1 (the defaults)": LayerShape(1, 1, (1, 1), 1, 0, (6, 6)),
    "1×1, channels": LayerShape(3, 4, (1, 1), 1, 0, (6, 6)),
    "square kernel": LayerShape(3, 4, (3, 3), 1, 0, (8, 8)),
    "rectangular kernel": LayerShape(3, 4, (2, 5), 1, 0, (8, 8)),
    "stride": LayerShape(3, 4, (3, 3), 2, 0, (8, 8)),
    "padding": LayerShape(3, 4, (3, 3), 1, 2, (8, 8)),
    "stride and padding": LayerShape(3, 4, (3, 3), 2, 1, (8, 8)),
    "all unequal": LayerShape(5, 7, (4, 2), 3, 1, (13, 10)),
}

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


@dataclass(frozen=True)
class Differences:
    """The largest absolute difference between the two layers in each quantity."""

    output: float
    input_grad: float
    weight_grad: float
    bias_grad: float


def compare(
    shape: LayerShape,
    *,
    batch_size: int = 2,
    dtype: torch.dtype = torch.float64,
    seed: int = SEED,
) -> Differences:
    """Run both layers forward and backward on the same random numbers.

    The gradient that comes back to the output is random too: a constant one, such as
    that of a sum, would hide errors of position.
    Raises ValueError when the two outputs differ in shape or type.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ours, theirs = shape.pair(dtype)
        images = shape.images(batch_size, dtype)
        output_grad = torch.randn_like(theirs(images))
    mine = _forward_backward(ours, images, output_grad)
    reference = _forward_backward(theirs, images, output_grad)
    return Differences(*map(_largest_difference, mine, reference))


def _forward_backward(
    layer: nn.Module, images: Tensor, output_grad: Tensor
) -> tuple[Tensor, ...]:
    """Output, and the gradients of images, weight and bias."""
    images = images.detach().requires_grad_()
    output = layer(images)
    grads = torch.autograd.grad(output, (images, layer.weight, layer.bias), output_grad)
    return output.detach(), *grads


def _largest_difference(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(
            f"{tuple(a.shape)} of {a.dtype} can't be compared with "
            f"{tuple(b.shape)} of {b.dtype}"
        )
    return (a - b).abs().max().item()


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

    @property
    def time_ratio(self) -> float:
        return statistics.geometric_mean(layer.time_ratio for layer in self.layers)

    @property
    def memory_ratio(self) -> float:
        return statistics.geometric_mean(layer.memory_ratio for layer in self.layers)


def benchmark(
    shapes: Iterable[LayerShape] = RESNET18_LAYERS,
    *,
    batch_size: int = 2,
    repetitions: int = 7,
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
        return Benchmark(tuple(costs))
    finally:
        torch.set_num_threads(threads)


def _layer_costs(shape: LayerShape, batch_size: int, repetitions: int) -> LayerCosts:
    layers = shape.pair(torch.float32)
    images = shape.images(batch_size, torch.float32)
    output_grad = torch.randn_like(layers[1](images))

    def run(layer: nn.Module) -> None:
        _forward_backward(layer, images, output_grad)

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
