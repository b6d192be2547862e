"""The hand-written convolution layer, against nn.Conv2d and against its definition."""

import ast
import copy
import inspect
import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from src import conv, conv_checks
from src.conv import Conv2d

#: Rounding, relative to the largest value, that sums in another order may differ by.
TOLERANCE = {
    torch.float64: 1e-13,
    torch.float32: 1e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 3e-3,
    torch.complex64: 1e-5,
}


def random_settings(count: int) -> list[dict]:
    """Constructor arguments and an image size that fits them, all drawn at random."""
    draw = random.Random(13)
    settings = []
    for _ in range(count):
        kernel = (draw.randint(1, 5), draw.randint(1, 5))
        padding = draw.randint(0, 3)
        settings.append(
            {
                "in_channels": draw.randint(1, 4),
                "out_channels": draw.randint(1, 5),
                "kernel_size": kernel,
                "stride": draw.randint(1, 4),
                "padding": padding,
                "image_size": tuple(
                    max(1, side - 2 * padding) + draw.randint(0, 7) for side in kernel
                ),
            }
        )
    return settings


def pair(dtype=torch.float64, **arguments) -> tuple[Conv2d, nn.Conv2d]:
    """Our layer and nn.Conv2d with the same weights."""
    theirs = nn.Conv2d(**arguments).to(dtype)
    ours = Conv2d(**arguments).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def results(layer: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output and gradients for an output gradient that depends on the shape alone."""
    image = image.detach().requires_grad_()
    output = layer(image)
    generator = torch.Generator().manual_seed(1)
    output_grad = torch.randn(output.shape, generator=generator).to(output)
    grads = torch.autograd.grad(output, (image, layer.weight, layer.bias), output_grad)
    return dict(
        zip(("output", "image", "weight", "bias"), (output, *grads), strict=True)
    )


def assert_same(ours, theirs, image) -> None:
    mine, reference = results(ours, image), results(theirs, image)
    for name, expected in reference.items():
        actual = mine[name]
        assert actual.shape == expected.shape, name
        assert actual.dtype == expected.dtype, name
        if expected.numel():
            scale = max(1, expected.abs().max().item())
            error = (actual - expected).abs().max().item()
            assert error <= TOLERANCE[image.dtype] * scale, (name, error)


# --------------------------------------------------------------- the assignment's rules


def test_signature_is_the_assignments():
    assert issubclass(Conv2d, nn.Module)
    assert str(inspect.signature(Conv2d.__init__)) == (
        "(self, in_channels=1, out_channels=1, kernel_size=(1, 1), stride=1, padding=0)"
    )


def test_of_torch_nn_only_module_and_parameter_are_used():
    tree = ast.parse(inspect.getsource(conv))
    from_nn, names = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("torch"):
            assert node.module == "torch"
            assert {alias.name for alias in node.names} == {"Tensor", "nn"}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
            if isinstance(node.value, ast.Name) and node.value.id == "nn":
                from_nn.add(node.attr)
    assert from_nn == {"Module", "Parameter"}
    forbidden = {"nn", "functional", "ops", "aten", "conv2d", "pad", "_C", "backends"}
    assert not names & forbidden
    assert not {name for name in names if "conv" in name or "pad_nd" in name}


def test_layer_has_no_python_loop():
    functions = (Conv2d, conv.zero_pad, conv.all_windows)
    tree = ast.parse("".join(map(inspect.getsource, functions)))
    loops = (ast.For, ast.While, ast.comprehension)
    assert not [node for node in ast.walk(tree) if isinstance(node, loops)]


# ---------------------------------------------------------------------- the mathematics


@pytest.mark.parametrize(
    "stride, padding, kernel_size",
    [(1, 0, (1, 1)), (1, 1, (3, 3)), (2, 0, (2, 3)), (3, 2, (4, 1)), (2, 3, (1, 5))],
)
def test_definition_by_exact_sums(stride, padding, kernel_size):
    draw = np.random.default_rng(13)
    image = draw.integers(-9, 10, (2, 3, 6, 7))
    layer = Conv2d(3, 4, kernel_size, stride, padding).double()
    weight = draw.integers(-9, 10, layer.weight.shape)
    bias = draw.integers(-9, 10, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    output = layer(torch.from_numpy(image).double())

    padded = np.pad(image, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    height = (6 + 2 * padding - kernel_size[0]) // stride + 1
    width = (7 + 2 * padding - kernel_size[1]) // stride + 1
    expected = np.empty((2, 4, height, width))
    for b, o, y, x in np.ndindex(expected.shape):
        top, left = y * stride, x * stride
        window = padded[b, :, top : top + kernel_size[0], left : left + kernel_size[1]]
        expected[b, o, y, x] = (window * weight[o]).sum() + bias[o]
    assert np.array_equal(output.detach().numpy(), expected)


def test_kernel_is_not_flipped():
    """A lone 1 in the image gives the kernel turned round: cross-correlation."""
    layer = Conv2d(1, 1, (3, 2), padding=2).double()
    with torch.no_grad():
        layer.bias.zero_()
    image = torch.zeros(1, 4, 4, dtype=torch.float64)
    image[0, 1, 2] = 1
    expected = torch.zeros(1, 6, 7, dtype=torch.float64)
    expected[0, 1:4, 3:5] = layer.weight.detach()[0, 0].flip(0, 1)
    assert torch.equal(layer(image), expected)


def test_output_and_gradients_equal_pytorchs_over_random_settings():
    torch.manual_seed(13)
    for setting in random_settings(150):
        size = setting.pop("image_size")
        ours, theirs = pair(**setting)
        batch = torch.randn(3, setting["in_channels"], *size, dtype=torch.float64)
        assert_same(ours, theirs, batch)
        assert_same(ours, theirs, batch[0])


def test_gradients_against_finite_differences():
    torch.manual_seed(13)
    layer = Conv2d(2, 3, (2, 3), stride=2, padding=1).double()
    image = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)

    def function(image, weight, bias):
        parameters = {"weight": weight, "bias": bias}
        return torch.func.functional_call(layer, parameters, image)

    inputs = (image, layer.weight, layer.bias)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_one_image_is_a_batch_of_one_and_a_batch_is_its_images():
    torch.manual_seed(13)
    layer = Conv2d(3, 4, (3, 2), 2, 1).double()
    batch = torch.randn(5, 3, 8, 9, dtype=torch.float64)
    one_by_one = torch.stack([layer(image) for image in batch])
    torch.testing.assert_close(layer(batch), one_by_one, rtol=0, atol=1e-14)


# ---------------------------------------------------- a drop-in for PyTorch's own layer


def test_same_seed_gives_the_same_weights_bit_for_bit():
    for seed, setting in enumerate(random_settings(60)):
        del setting["image_size"]
        torch.manual_seed(seed)
        theirs, after_theirs = nn.Conv2d(**setting).state_dict(), torch.rand(1)
        torch.manual_seed(seed)
        ours, after_ours = Conv2d(**setting).state_dict(), torch.rand(1)
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        assert torch.equal(after_ours, after_theirs)  # as many numbers were drawn


def test_float32_bound_is_kaimings_for_every_fan_in():
    fan_in = np.arange(1, 200_000)
    kaiming = math.sqrt(3) * (nn.init.calculate_gain("leaky_relu", math.sqrt(5)))
    theirs = np.float32(kaiming / np.sqrt(fan_in))
    assert np.array_equal(np.float32(1 / np.sqrt(fan_in)), theirs)


def test_state_dict_goes_both_ways():
    arguments = {"in_channels": 3, "out_channels": 4, "kernel_size": (3, 2)}
    image = torch.randn(1, 3, 5, 5)
    for source, target in ((Conv2d, nn.Conv2d), (nn.Conv2d, Conv2d)):
        given, taken = source(**arguments), target(**arguments)
        taken.load_state_dict(given.state_dict(), strict=True)
        torch.testing.assert_close(taken(image), given(image), rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match="size mismatch"):
        Conv2d(3, 4, 2).load_state_dict(nn.Conv2d(3, 4, 3).state_dict())


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64],
)
@pytest.mark.filterwarnings("ignore:Complex modules")
def test_any_dtype(dtype):
    torch.manual_seed(13)
    ours, theirs = pair(
        dtype, in_channels=3, out_channels=4, kernel_size=(3, 2), stride=2, padding=1
    )
    assert_same(ours, theirs, torch.randn(2, 3, 7, 6, dtype=dtype))


def test_autocast_chooses_the_dtype_as_for_pytorchs_layer():
    ours, theirs = pair(torch.float32, in_channels=3, out_channels=4, kernel_size=3)
    image = torch.randn(2, 3, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ours(image).dtype == theirs(image).dtype == torch.bfloat16


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(
    "layout",
    [
        lambda image: image.to(memory_format=torch.channels_last),
        lambda image: image.transpose(2, 3),
        lambda image: image[:, :, ::2, 1:],
        lambda image: image[:, :, :1, :1].expand(-1, -1, 5, 4),
    ],
    ids=["channels last", "transposed", "sliced", "expanded"],
)
def test_any_memory_layout(layout, padding):
    torch.manual_seed(13)
    ours, theirs = pair(
        in_channels=3, out_channels=4, kernel_size=(3, 2), padding=padding
    )
    image = layout(torch.randn(2, 3, 8, 7, dtype=torch.float64))
    before = image.clone()
    assert_same(ours, theirs, image)
    assert torch.equal(image, before)
    assert ours(image).is_contiguous()


def test_weights_in_channels_last():
    ours, theirs = pair(in_channels=3, out_channels=4, kernel_size=(3, 2))
    ours.to(memory_format=torch.channels_last)
    assert_same(ours, theirs, torch.randn(2, 3, 6, 6, dtype=torch.float64))


def test_empty_batch():
    ours, theirs = pair(in_channels=3, out_channels=4, kernel_size=3, padding=1)
    assert_same(ours, theirs, torch.empty(0, 3, 6, 5, dtype=torch.float64))


def test_device_is_the_inputs():
    """On "meta", a device without numbers; a tensor made elsewhere would not mix."""
    layer = Conv2d(3, 4, (3, 2), 2, 1).to("meta")
    output = layer(torch.empty(2, 3, 7, 6, device="meta"))
    assert output.device.type == "meta"
    assert output.shape == (2, 4, 4, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda():
    ours, theirs = pair(in_channels=3, out_channels=4, kernel_size=(3, 2), padding=1)
    image = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    expected = theirs(image)
    actual = ours.to("cuda")(image.to("cuda"))
    assert (actual.cpu() - expected).abs().max() < 1e-13


def test_copies_are_independent():
    layer = Conv2d(2, 3, 3)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.weight.zero_()
    assert layer.weight.abs().min() > 0
    assert (twin.stride, twin.padding) == (layer.stride, layer.padding)


# ------------------------------------------------------------------------ bad arguments


@pytest.mark.parametrize(
    "kernel_size", [3, np.int64(3), [3, 3], (3, 3), torch.Size([3, 3])]
)
def test_kernel_size_as_a_number_or_a_pair(kernel_size):
    assert Conv2d(kernel_size=kernel_size).kernel_size == (3, 3)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ({"stride": -2}, ValueError, "stride must be at least 1, got -2"),
        ({"stride": (2, 2)}, TypeError, r"stride must be one whole number.*\(2, 2\)"),
        ({"stride": 1.5}, TypeError, "stride must be one whole number.*1.5"),
        ({"stride": None}, TypeError, "stride must be one whole number.*None"),
        ({"padding": -1}, ValueError, "padding must be at least 0, got -1"),
        ({"padding": (1, 1)}, TypeError, r"padding must be one whole.*\(1, 1\)"),
        ({"padding": "same"}, TypeError, "padding must be one whole number.*'same'"),
        ({"padding": 0.5}, TypeError, "padding must be one whole number.*0.5"),
        ({"kernel_size": 0}, ValueError, "kernel_size must be at least 1, got 0"),
        ({"kernel_size": (3, 0)}, ValueError, "kernel_size must be at least 1, got 0"),
        ({"kernel_size": (3,)}, ValueError, r"kernel_size must be \(height.*\(3,\)"),
        ({"kernel_size": (1, 2, 3)}, ValueError, r"kernel_size must be.*\(1, 2, 3\)"),
        ({"kernel_size": 2.0}, TypeError, "kernel_size must be one whole number.*2.0"),
        ({"kernel_size": "33"}, TypeError, "kernel_size must be one whole number.*'3'"),
        ({"in_channels": 0}, ValueError, "in_channels must be at least 1, got 0"),
        ({"out_channels": 0}, ValueError, "out_channels must be at least 1, got 0"),
        ({"out_channels": 2.5}, TypeError, "out_channels must be one whole.*2.5"),
    ],
)
def test_arguments_that_make_no_sense(arguments, error, message):
    with pytest.raises(error, match=message):
        Conv2d(**arguments)


@pytest.mark.parametrize(
    "shape, message",
    [
        ((2, 4, 8, 8), r"\(2, 4, 8, 8\) has 4 channels.*in_channels=3"),
        ((4, 8, 8), r"\(4, 8, 8\) has 4 channels.*in_channels=3"),
        ((8, 8), r"got 2 dimensions: \(8, 8\)"),
        ((1, 2, 3, 8, 8), "got 5 dimensions"),
        ((), "got 0 dimensions"),
        (
            (3, 2, 9),
            r"kernel \(5, 2\).*padded image \(4, 11\).*image \(2, 9\), padding 1",
        ),
        ((3, 0, 9), "no pixels"),
        ((2, 3, 9, 0), "no pixels"),
    ],
)
def test_images_that_do_not_fit(shape, message):
    layer = Conv2d(3, 4, kernel_size=(5, 2), padding=1)
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(shape))


def test_input_that_is_no_tensor():
    with pytest.raises(TypeError, match=r"torch.Tensor, got ndarray.*as_tensor"):
        Conv2d()(np.zeros((1, 3, 3)))


# ------------------------------------------------------------------------ what it costs


def test_resnet18_layers_are_torchvisions():
    with torch.device("meta"):
        model = models.resnet18()
        found = []
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(
                    lambda layer, inputs, _: found.append(
                        conv_checks.LayerShape(
                            layer.in_channels,
                            layer.out_channels,
                            layer.kernel_size,
                            layer.stride[0],
                            layer.padding[0],
                            tuple(inputs[0].shape[2:]),
                        )
                    )
                )
        model(torch.empty(1, 3, 224, 224))
    assert set(found) == set(conv_checks.RESNET18_LAYERS)
    assert len(set(found)) == len(conv_checks.RESNET18_LAYERS)


def test_benchmark_measures_what_it_says():
    threads = torch.get_num_threads()
    shapes = conv_checks.RESNET18_LAYERS[-2:]
    measured = conv_checks.benchmark(shapes, batch_size=1, repetitions=2)
    assert torch.get_num_threads() == threads
    assert [layer.shape for layer in measured.layers] == list(shapes)
    for layer in measured.layers:
        assert 0.05 < layer.time_ratio < 20
        weight_bytes = 4 * 512 * layer.shape.in_channels
        weight_bytes *= math.prod(layer.shape.kernel_size)
        assert min(layer.peaks) >= weight_bytes


def test_benchmark_takes_turns_and_medians_on_one_core(monkeypatch):
    """With a clock that tells how often it was asked, and peaks of 30 and 10 bytes."""
    turns, peaks = [], iter([30, 10, 60, 30])
    #: what each turn takes: ours, theirs, ours, ...; the first two warm up
    lengths = iter([900, 800, 8, 1, 2, 5, 6, 3, 900, 800, 3, 1, 3, 1, 3, 1])
    clock = [0]

    def seconds():
        return clock[0]

    def run(layer, images, output_grad):
        assert torch.get_num_threads() == 1
        assert images.shape == (4, 2, 5, 5) and output_grad.shape == (4, 3, 5, 5)
        assert images.dtype == output_grad.dtype == torch.float32
        turns.append(type(layer))
        clock[0] += next(lengths)

    def peak(action):
        return next(peaks)

    monkeypatch.setattr(conv_checks, "_seconds", seconds)
    monkeypatch.setattr(conv_checks, "forward_backward", run)
    monkeypatch.setattr(conv_checks, "peak_bytes", peak)
    monkeypatch.setattr(torch, "set_num_threads", set_threads := Threads())
    monkeypatch.setattr(torch, "get_num_threads", lambda: set_threads.now)
    shape = conv_checks.LayerShape(2, 3, (3, 3), 1, 1, (5, 5))
    found = conv_checks.benchmark([shape, shape], batch_size=4, repetitions=3)
    first, second = found.layers
    assert turns == [Conv2d, nn.Conv2d] * 8
    assert (first.seconds, first.peaks) == ((6, 3), (30, 10))
    assert (first.time_ratio, first.memory_ratio) == (2, 3)
    assert (second.time_ratio, second.memory_ratio) == (3, 2)
    assert found.batch_size == 4
    assert found.time_ratio == pytest.approx(math.sqrt(6))
    assert found.memory_ratio == pytest.approx(math.sqrt(6))
    assert set_threads.now == 7


class Threads:
    """Stands in for torch's number of threads."""

    now = 7

    def __call__(self, count):
        self.now = count


def test_benchmark_is_of_all_of_resnet18(monkeypatch):
    monkeypatch.setattr(conv_checks, "_layer_costs", lambda *arguments: arguments)
    assert conv_checks.benchmark().layers == tuple(
        (shape, 8, 3) for shape in conv_checks.RESNET18_LAYERS
    )


def test_peak_bytes():
    def allocate():
        kept = torch.empty(1000, dtype=torch.float32)
        temporary = torch.empty(3000, dtype=torch.float32)
        del temporary
        return kept, torch.empty(500, dtype=torch.float32)

    assert 16_000 <= conv_checks.peak_bytes(allocate) < 17_000
    assert conv_checks.peak_bytes(lambda: None) == 0


def costs(shape: conv_checks.LayerShape) -> conv_checks.Benchmark:
    """A benchmark of one layer, made up: 2 and 1 ms, 30 and 10 bytes."""
    layer = conv_checks.LayerCosts(shape, seconds=(2e-3, 1e-3), peaks=(30, 10))
    return conv_checks.Benchmark((layer,), 4)


def test_table_of_costs():
    shape = conv_checks.LayerShape(64, 128, (3, 1), 2, 1, (56, 56))
    *_, layer, mean = conv_checks.cost_table(costs(shape)).splitlines()
    assert (
        layer == "| `64→128, 3×1, stride 2, 56 px` | 2.0 ms | 1.0 ms | 2.00× | 3.00× |"
    )
    assert mean == "| **geometric mean** |  |  | **2.00×** | **3.00×** |"


def test_what_is_recorded(monkeypatch):
    monkeypatch.setattr(
        conv_checks, "record_results", lambda *a, **sections: seen.append((a, sections))
    )
    seen = []
    shape = conv_checks.LayerShape(3, 64, (7, 7), 1, 3, (224, 224))
    conv_checks.record({"output": 1e-15}, 8, True, costs(shape))
    recorded = {
        "largest_differences_float64": {"output": 1e-15},
        "cases": 8,
        "gradcheck": True,
        "batch_size": 4,
        "time_ratio": pytest.approx(2),
        "memory_ratio": pytest.approx(3),
        "layers": {"3→64, 7×7, 224 px": {"time_ratio": 2, "memory_ratio": 3}},
    }
    assert seen == [(("q1",), {"convolution": recorded})]
