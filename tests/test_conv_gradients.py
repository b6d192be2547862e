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
    chain_rule,
    convolution_gradients,
    cross_correlate,
    symbols,
)

EXACT = {"rtol": 0, "atol": 1e-12}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


# --- symbols -----------------------------------------------------------------


@dataclasses.dataclass
class Derived:
    """A convolution in symbols, and its gradients by the chain rule."""

    image_shape: tuple[int, int]
    kernel_shape: tuple[int, int]

    def __post_init__(self):
        self.image = symbols("x_{i,j}", *self.image_shape)
        self.kernel = symbols("k_{i,j}", *self.kernel_shape)
        self.output = cross_correlate(self.image, self.kernel)
        self.output_grad = symbols("g_{i,j}", *self.output.shape)
        self.kernel_grad = chain_rule(self.output, self.output_grad, self.kernel)
        self.image_grad = chain_rule(self.output, self.output_grad, self.image)


def test_the_question_itself_3x3_image_and_2x1_kernel():
    derived = Derived((3, 3), (2, 1))
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
    derived = Derived((1, 3), (1, 2))
    (x1, x2, x3), (k1, k2), (g1, g2) = (
        derived.image,
        derived.kernel,
        derived.output_grad,
    )
    assert derived.output == sympy.Matrix([[k1 * x1 + k2 * x2, k1 * x2 + k2 * x3]])
    assert derived.kernel_grad == sympy.Matrix([[g1 * x1 + g2 * x2, g1 * x2 + g2 * x3]])
    assert derived.image_grad == sympy.Matrix([[k1 * g1, k2 * g1 + k1 * g2, k2 * g2]])


def test_a_kernel_as_large_as_its_image_and_a_single_weight():
    whole = Derived((2, 2), (2, 2))
    (g,) = whole.output_grad
    assert whole.kernel_grad == g * whole.image
    assert whole.image_grad == g * whole.kernel
    single = Derived((2, 3), (1, 1))
    (k,) = single.kernel
    assert single.image_grad == k * single.output_grad
    assert single.kernel_grad[0] == sum(
        g * x for g, x in zip(single.output_grad, single.image, strict=True)
    )


def slide(image: sympy.Matrix, kernel: sympy.Matrix) -> sympy.Matrix:
    rows, columns = kernel.shape
    return sympy.Matrix(
        image.rows - rows + 1,
        image.cols - columns + 1,
        lambda i, j: sum(
            kernel[a, b] * image[i + a, j + b]
            for a in range(rows)
            for b in range(columns)
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
        derived = Derived(image_shape, kernel_shape)
        g, (rows, columns) = derived.output_grad, kernel_shape
        padded = sympy.zeros(g.rows + 2 * rows - 2, g.cols + 2 * columns - 2)
        padded[rows - 1 : rows - 1 + g.rows, columns - 1 : columns - 1 + g.cols] = g
        flipped = derived.kernel[::-1, ::-1]
        sizes = f"{image_shape}, {kernel_shape}"
        assert derived.output == slide(derived.image, derived.kernel), sizes
        assert derived.kernel_grad == slide(derived.image, g), sizes
        assert derived.image_grad == slide(padded, flipped), sizes


def test_symbols_are_distinct_and_named_from_one():
    matrix = symbols(r"\frac{\partial C}{\partial y_{i,j}}", 12, 11)
    assert matrix.shape == (12, 11)
    assert str(matrix[0, 1]) == r"\frac{\partial C}{\partial y_{1,2}}"
    assert str(matrix[10, 0]) == r"\frac{\partial C}{\partial y_{11,1}}"
    assert str(matrix[0, 10]) == r"\frac{\partial C}{\partial y_{1,11}}"
    assert len(matrix.free_symbols) == 132


def test_the_chain_rule_differentiates_any_output():
    x, y, a, b = sympy.symbols("x y a b")
    output, given = sympy.Matrix([[x**2, x * y]]), sympy.Matrix([[a, b]])
    found = chain_rule(output, given, sympy.Matrix([x, y]))
    assert found == sympy.Matrix([2 * a * x + b * y, b * x])


def test_a_kernel_that_does_not_fit_is_refused():
    with pytest.raises(ValueError):
        cross_correlate(symbols("x_{i,j}", 3, 3), symbols("k_{i,j}", 5, 1))


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

    ours = convolution_gradients(image, weight, output_grad, **step)
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


def test_the_general_function_contains_the_question_as_a_case():
    derived = Derived((3, 3), (2, 1))
    image, kernel, output_grad = normal(3, 3), normal(2, 1, seed=1), normal(2, 3)
    value_of = {}
    for letters, numbers in (
        (derived.image, image),
        (derived.kernel, kernel),
        (derived.output_grad, output_grad),
    ):
        value_of |= dict(zip(letters, numbers.flatten().tolist(), strict=True))
    by_image, by_kernel, _ = convolution_gradients(
        image[None, None], kernel[None, None], output_grad[None, None]
    )
    for found, symbolic in (
        (by_image, derived.image_grad),
        (by_kernel, derived.kernel_grad),
    ):
        expected = sympy.matrix2numpy(symbolic.subs(value_of), dtype=float)
        torch.testing.assert_close(found[0, 0], torch.from_numpy(expected), **EXACT)


def test_a_pixel_that_the_stride_leaves_over_has_no_gradient():
    ones = torch.ones(1, 1, 2, 1)
    by_pixel, _, _ = convolution_gradients(torch.ones(1, 1, 5, 1), ones, ones, stride=2)
    assert by_pixel.flatten().tolist() == [1, 1, 1, 1, 0]


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
        found = convolution_gradients(image, weight.detach(), output_grad, 2, 1)
    assert recorder.names
    assert not [n for n in recorder.names if "conv" in n or "backward" in n]
    assert all(gradient.grad_fn is None for gradient in found)


def test_arguments_are_left_as_they_were():
    image, weight, output_grad = (
        normal(1, 1, 4, 4),
        normal(1, 1, 2, 2),
        normal(1, 1, 3, 3),
    )
    before = [tensor.clone() for tensor in (image, weight, output_grad)]
    convolution_gradients(image, weight, output_grad)
    for tensor, copy in zip((image, weight, output_grad), before, strict=True):
        assert torch.equal(tensor, copy)


@pytest.mark.parametrize(
    "shape",
    [(2, 5, 3, 3), (3, 4, 3, 3), (2, 4, 4, 3), (2, 4, 3, 4)],
    ids=["channels", "batch", "height", "width"],
)
def test_an_output_gradient_of_the_wrong_shape_is_refused(shape):
    image, weight = normal(2, 3, 6, 5), normal(4, 3, 3, 2)
    convolution_gradients(image, weight, normal(2, 4, 3, 3), 2, 1)
    with pytest.raises(RuntimeError, match=r"einsum|expanded size"):
        convolution_gradients(image, weight, normal(*shape), 2, 1)
