"""The gradients of question 2, against hand-written forms, autograd and torch.nn.grad.

Everything is float64. The tolerance is absolute: the sums have at most 405 products of
standard normal numbers, which differ by about 2e-14 when added in another order.
"""

import dataclasses
import itertools
import random

import pytest
import sympy
import torch
from torch.nn.functional import conv2d
from torch.utils._python_dispatch import TorchDispatchMode

from src.conv_gradients import (
    bias_gradient,
    input_gradient,
    symbolic_gradients,
    weight_gradient,
)

EXACT = {"rtol": 0, "atol": 1e-12}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


# --- symbols -----------------------------------------------------------------


def test_the_question_itself_3x3_image_and_2x1_kernel():
    derived = symbolic_gradients((3, 3), (2, 1))
    x11, x12, x13, x21, x22, x23, x31, x32, x33 = derived.image
    k1, k2 = derived.kernel
    g11, g12, g13, g21, g22, g23 = derived.output_grad
    assert derived.output == sympy.Matrix(
        [
            [k1 * x11 + k2 * x21, k1 * x12 + k2 * x22, k1 * x13 + k2 * x23],
            [k1 * x21 + k2 * x31, k1 * x22 + k2 * x32, k1 * x23 + k2 * x33],
        ]
    )
    assert derived.kernel_grad == sympy.Matrix(
        [
            g11 * x11 + g12 * x12 + g13 * x13 + g21 * x21 + g22 * x22 + g23 * x23,
            g11 * x21 + g12 * x22 + g13 * x23 + g21 * x31 + g22 * x32 + g23 * x33,
        ]
    )
    assert derived.image_grad == sympy.Matrix(
        [
            [k1 * g11, k1 * g12, k1 * g13],
            [k2 * g11 + k1 * g21, k2 * g12 + k1 * g22, k2 * g13 + k1 * g23],
            [k2 * g21, k2 * g22, k2 * g23],
        ]
    )


def test_a_wide_kernel_runs_along_the_columns():
    derived = symbolic_gradients((1, 3), (1, 2))
    (x1, x2, x3), (k1, k2), (g1, g2) = (
        derived.image,
        derived.kernel,
        derived.output_grad,
    )
    assert derived.output == sympy.Matrix([[k1 * x1 + k2 * x2, k1 * x2 + k2 * x3]])
    assert derived.kernel_grad == sympy.Matrix([[g1 * x1 + g2 * x2, g1 * x2 + g2 * x3]])
    assert derived.image_grad == sympy.Matrix([[k1 * g1, k2 * g1 + k1 * g2, k2 * g2]])


def test_a_kernel_as_large_as_its_image_and_a_single_weight():
    whole = symbolic_gradients((2, 2), (2, 2))
    (g,) = whole.output_grad
    assert whole.kernel_grad == g * whole.image
    assert whole.image_grad == g * whole.kernel
    single = symbolic_gradients((2, 3), (1, 1))
    (k,) = single.kernel
    assert single.image_grad == k * single.output_grad
    assert single.kernel_grad[0] == sum(
        g * x for g, x in zip(single.output_grad, single.image, strict=True)
    )


def cross_correlate(image: sympy.Matrix, kernel: sympy.Matrix) -> sympy.Matrix:
    rows, columns = kernel.shape
    return sympy.Matrix(
        image.rows - rows + 1,
        image.cols - columns + 1,
        lambda i, j: sum(
            w * x
            for w, x in zip(kernel, image[i : i + rows, j : j + columns], strict=True)
        ),
    )


SIZES = [
    (image, kernel)
    for image in itertools.product(range(1, 5), repeat=2)
    for kernel in itertools.product(range(1, 4), repeat=2)
    if kernel[0] <= image[0] and kernel[1] <= image[1]
]


def test_the_general_rule_holds_for_every_small_size():
    assert len(SIZES) == 81
    for image_shape, kernel_shape in SIZES:
        derived = symbolic_gradients(image_shape, kernel_shape)
        g, (rows, columns) = derived.output_grad, kernel_shape
        padded = sympy.zeros(g.rows + 2 * rows - 2, g.cols + 2 * columns - 2)
        padded[rows - 1 : rows - 1 + g.rows, columns - 1 : columns - 1 + g.cols] = g
        flipped = derived.kernel[::-1, ::-1]
        sizes = f"{image_shape}, {kernel_shape}"
        assert derived.output == cross_correlate(derived.image, derived.kernel), sizes
        assert derived.kernel_grad == cross_correlate(derived.image, g), sizes
        assert derived.image_grad == cross_correlate(padded, flipped), sizes


def test_symbols_are_distinct_and_named_from_one():
    derived = symbolic_gradients((12, 11), (1, 1))
    assert str(derived.image[0, 0]) == "x_{1,1}"
    assert str(derived.image[10, 0]) == "x_{11,1}"
    assert str(derived.image[0, 10]) == "x_{1,11}"
    assert str(derived.output_grad[0, 1]) == r"\frac{\partial C}{\partial y_{1,2}}"
    assert len(derived.image.free_symbols) == 132


def test_the_derivation_cannot_be_changed():
    derived = symbolic_gradients((2, 2), (1, 1))
    assert [field.name for field in dataclasses.fields(derived)] == [
        "image",
        "kernel",
        "output_grad",
        "output",
        "kernel_grad",
        "image_grad",
    ]
    with pytest.raises(dataclasses.FrozenInstanceError):
        derived.output = derived.image
    with pytest.raises(TypeError, match="immutable"):
        derived.image_grad[0, 0] = 0


@pytest.mark.parametrize("seed", range(10))
def test_with_numbers_the_symbols_agree_with_autograd(seed):
    draw = random.Random(seed)
    kernel_shape = (draw.randint(1, 3), draw.randint(1, 3))
    image_shape = tuple(size + draw.randint(0, 3) for size in kernel_shape)
    derived = symbolic_gradients(image_shape, kernel_shape)
    image = normal(*image_shape, seed=seed).requires_grad_()
    kernel = normal(*kernel_shape, seed=seed + 100).requires_grad_()
    output = conv2d(image[None, None], kernel[None, None])[0, 0]
    output_grad = normal(*output.shape, seed=seed + 200)
    output.backward(output_grad)

    kernel_grad, image_grad = derived.evaluate(
        image.detach(), kernel.detach(), output_grad
    )
    torch.testing.assert_close(kernel_grad, kernel.grad, **EXACT)
    torch.testing.assert_close(image_grad, image.grad, **EXACT)


def test_evaluating_at_whole_numbers_gives_float64():
    derived = symbolic_gradients((2, 1), (1, 1))
    gradients = derived.evaluate(
        torch.tensor([[1], [2]]), torch.tensor([[3]]), torch.tensor([[4], [5]])
    )
    torch.testing.assert_close(gradients[0], torch.tensor([[14.0]]).double())
    torch.testing.assert_close(gradients[1], torch.tensor([[12.0], [15.0]]).double())


def test_evaluating_needs_the_shapes_of_the_symbols():
    derived = symbolic_gradients((2, 3), (1, 1))
    with pytest.raises(ValueError, match=r"image must have shape \(2, 3\).*\(3, 2\)"):
        derived.evaluate(normal(3, 2), normal(1, 1), normal(2, 3))
    with pytest.raises(ValueError, match=r"output_grad must have .*\(2, 3\).*\(6,\)"):
        derived.evaluate(normal(2, 3), normal(1, 1), normal(6))


@pytest.mark.parametrize(
    ("image_shape", "kernel_shape", "error", "message"),
    [
        ((3, 3), (4, 1), ValueError, r"kernel of \(4, 1\) .* image of \(3, 3\)"),
        ((3, 3), (1, 4), ValueError, r"kernel of \(1, 4\) .* image of \(3, 3\)"),
        ((0, 3), (1, 1), ValueError, r"image_shape .* got \(0, 3\)"),
        ((3, 3), (2, -1), ValueError, r"kernel_shape .* got \(2, -1\)"),
        ((3, 3, 3), (1, 1), ValueError, r"image_shape .* got \(3, 3, 3\)"),
        ((3, 3), (2,), ValueError, r"kernel_shape .* got \(2,\)"),
        (3, (1, 1), TypeError, "image_shape must be a pair of ints .* got 3"),
        ((3, 3), (1.5, 1), TypeError, r"kernel_shape must be .* got \(1.5, 1\)"),
        ((3, 3), "21", TypeError, "kernel_shape must be .* got '21'"),
    ],
)
def test_senseless_shapes_are_refused(image_shape, kernel_shape, error, message):
    with pytest.raises(error, match=message):
        symbolic_gradients(image_shape, kernel_shape)


# --- the general case ----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Configuration:
    batch: int
    in_channels: int
    out_channels: int
    image_size: tuple[int, int]
    kernel_size: tuple[int, int]
    stride: int
    padding: int

    @classmethod
    def draw(cls, seed: int) -> "Configuration":
        draw = random.Random(seed)
        padding = draw.randint(0, 4)
        kernel_size = (draw.randint(1, 5), draw.randint(1, 5))
        return cls(
            batch=draw.randint(1, 3),
            in_channels=draw.randint(1, 3),
            out_channels=draw.randint(1, 3),
            image_size=tuple(
                draw.randint(max(1, size - 2 * padding), 10) for size in kernel_size
            ),
            kernel_size=kernel_size,
            stride=draw.randint(1, 4),
            padding=padding,
        )

    @property
    def divides(self) -> bool:
        return all(
            (image + 2 * self.padding - kernel) % self.stride == 0
            for image, kernel in zip(self.image_size, self.kernel_size, strict=True)
        )


CONFIGURATIONS = [Configuration.draw(seed) for seed in range(200)]


def test_the_configurations_cover_what_they_are_meant_to():
    def count(condition):
        return sum(map(condition, CONFIGURATIONS))

    assert count(lambda c: not c.divides) >= 40
    assert count(lambda c: c.kernel_size[0] != c.kernel_size[1]) >= 100
    assert count(lambda c: c.padding >= max(c.kernel_size)) >= 30
    assert count(lambda c: c.stride > max(c.kernel_size)) >= 20
    assert count(lambda c: c.in_channels != c.out_channels) >= 60


@pytest.mark.parametrize("index", range(len(CONFIGURATIONS)))
def test_general_gradients_equal_torchs(index):
    c = CONFIGURATIONS[index]
    image = normal(c.batch, c.in_channels, *c.image_size, seed=index)
    weight = normal(c.out_channels, c.in_channels, *c.kernel_size, seed=index + 1000)
    bias = normal(c.out_channels, seed=index + 2000)
    step = {"stride": c.stride, "padding": c.padding}
    leaves = [tensor.clone().requires_grad_() for tensor in (image, weight, bias)]
    output = conv2d(*leaves, **step)
    output_grad = normal(*output.shape, seed=index + 3000)
    by_autograd = torch.autograd.grad(output, leaves, output_grad)

    ours = (
        input_gradient(output_grad, weight, c.image_size, **step),
        weight_gradient(image, output_grad, c.kernel_size, **step),
        bias_gradient(output_grad),
    )
    for mine, reference in zip(ours, by_autograd, strict=True):
        torch.testing.assert_close(mine, reference, **EXACT)
    torch.testing.assert_close(
        ours[0],
        torch.nn.grad.conv2d_input(image.shape, weight, output_grad, **step),
        **EXACT,
    )
    torch.testing.assert_close(
        ours[1],
        torch.nn.grad.conv2d_weight(image, weight.shape, output_grad, **step),
        **EXACT,
    )


def test_the_general_functions_contain_the_question_as_a_case():
    derived = symbolic_gradients((3, 3), (2, 1))
    image, kernel, output_grad = (
        normal(3, 3),
        normal(2, 1, seed=1),
        normal(2, 3, seed=2),
    )
    kernel_grad, image_grad = derived.evaluate(image, kernel, output_grad)
    general_kernel_grad = weight_gradient(
        image[None, None], output_grad[None, None], (2, 1)
    )
    general_image_grad = input_gradient(
        output_grad[None, None], kernel[None, None], (3, 3)
    )
    torch.testing.assert_close(general_kernel_grad[0, 0], kernel_grad, **EXACT)
    torch.testing.assert_close(general_image_grad[0, 0], image_grad, **EXACT)


def test_no_ready_made_convolution_and_no_autograd_is_used():
    class Recorder(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.names = []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.names.append(function.name())
            return function(*args, **(kwargs or {}))

    image, weight = normal(2, 3, 6, 5), normal(4, 3, 3, 2).requires_grad_()
    with Recorder() as recorder:
        conv2d(image, weight)
    assert any("conv" in name for name in recorder.names)  # it would be noticed

    output_grad = normal(2, 4, 3, 3)
    with Recorder() as recorder:
        found = input_gradient(output_grad, weight.detach(), (6, 5), 2, 1)
        weight_gradient(image, output_grad, (3, 2), 2, 1)
        bias_gradient(output_grad)
    assert recorder.names
    assert not [n for n in recorder.names if "conv" in n or "backward" in n]
    assert found.grad_fn is None


def test_arguments_are_left_as_they_were():
    image, weight, output_grad = (
        normal(1, 1, 4, 4),
        normal(1, 1, 2, 2),
        normal(1, 1, 3, 3),
    )
    before = [tensor.clone() for tensor in (image, weight, output_grad)]
    input_gradient(output_grad, weight, (4, 4))
    weight_gradient(image, output_grad, (2, 2))
    bias_gradient(output_grad)
    for tensor, copy in zip((image, weight, output_grad), before, strict=True):
        assert torch.equal(tensor, copy)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 5, 3, 3), r"shape \(2, 5, 3, 3\), but .* \(2, 4, 3, 3\)"),  # channels
        ((2, 4, 3, 2), r"shape \(2, 4, 3, 2\), but .* \(2, 4, 3, 3\)"),  # size
        ((4, 3, 3), r"output_grad must be \[B, O, OH, OW\], got .* \(4, 3, 3\)"),
    ],
)
def test_an_output_gradient_of_the_wrong_shape_is_refused_for_the_input(shape, message):
    with pytest.raises(ValueError, match=message):
        input_gradient(normal(*shape), normal(4, 3, 3, 2), (6, 5), 2, 1)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 3, 3), r"shape \(1, 4, 3, 3\), but .* \(2, 4, 3, 3\)"),  # batch
        ((2, 4, 4, 3), r"shape \(2, 4, 4, 3\), but .* \(2, 4, 3, 3\)"),  # size
        ((4, 3, 3), r"output_grad must be \[B, O, OH, OW\], got .* \(4, 3, 3\)"),
    ],
)
def test_an_output_gradient_of_the_wrong_shape_is_refused_for_the_weight(
    shape, message
):
    with pytest.raises(ValueError, match=message):
        weight_gradient(normal(2, 3, 6, 5), normal(*shape), (3, 2), 2, 1)


def test_other_wrong_ranks_are_refused():
    with pytest.raises(
        ValueError, match=r"image must be \[B, C, H, W\], got .*\(6, 5\)"
    ):
        weight_gradient(normal(6, 5), normal(1, 1, 6, 5), (1, 1))
    with pytest.raises(
        ValueError, match=r"weight must be \[O, C, KH, KW\], got .*\(1,\)"
    ):
        input_gradient(normal(1, 1, 6, 5), normal(1), (6, 5))
    with pytest.raises(ValueError, match=r"output_grad must be .*, got .*\(6, 5\)"):
        bias_gradient(normal(6, 5))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ({"padding": -1}, ValueError, "padding must be at least 0, got -1"),
        ({"stride": (1, 1)}, TypeError, r"stride must be .* got \(1, 1\)"),
        ({"padding": 0.5}, TypeError, r"padding must be .* got 0\.5"),
        ({"image_size": (2, 5)}, ValueError, r"kernel of \(3, 2\) .* of \(2, 5\)"),
        (
            {"image_size": (3, -1), "padding": 1},
            ValueError,
            r"image_size .* got \(3, -1\)",
        ),
    ],
)
def test_senseless_convolutions_are_refused(arguments, error, message):
    arguments = {"image_size": (6, 5), **arguments}
    with pytest.raises(error, match=message):
        input_gradient(normal(1, 1, 4, 4), normal(1, 1, 3, 2), **arguments)


def test_a_kernel_larger_than_the_padded_image_is_refused():
    with pytest.raises(
        ValueError, match=r"kernel of \(9, 1\) .* \(8, 8\) \(padding inc"
    ):
        weight_gradient(normal(1, 1, 6, 6), normal(1, 1, 1, 1), (9, 1), padding=1)
