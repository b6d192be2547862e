"""Back-propagation through a convolution, derived by sympy and written out in tensors.

"Convolution" is what deep learning calls by that name, cross-correlation: the kernel is
not flipped. With C the cost, and the output's gradient ∂C/∂Y given, the chain rule is

    ∂C/∂z = Σ over outputs y of  ∂C/∂y · ∂y/∂z        for any kernel element or pixel z.

`symbolic_gradients` applies exactly that to symbols: one channel, stride 1, no padding.
`input_gradient`, `weight_gradient` and `bias_gradient` are what it amounts to for any
channels, stride and padding, in plain tensor operations: no autograd, no convolution.
"""

from dataclasses import dataclass

import sympy
import torch
from torch import Tensor

from src.conv import whole_number, zero_pad


@dataclass(frozen=True)
class SymbolicGradients:
    """A convolution and its gradients in symbols. Indices in names start at 1.

    image, kernel: the symbols x_{i,j} and k_{i,j}.
    output_grad: the symbols ∂C/∂y_{i,j}, in the shape of `output`.
    output, kernel_grad, image_grad: expressions in those symbols.
    """

    image: sympy.ImmutableMatrix
    kernel: sympy.ImmutableMatrix
    output_grad: sympy.ImmutableMatrix
    output: sympy.ImmutableMatrix
    kernel_grad: sympy.ImmutableMatrix
    image_grad: sympy.ImmutableMatrix

    def evaluate(
        self, image: Tensor, kernel: Tensor, output_grad: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The kernel's and the image's gradient with numbers in place of the symbols.

        Takes and returns matrices; the results are float64 whatever the numbers' type.
        Raises ValueError when a matrix hasn't the shape of its symbols.
        """
        number_of = {}
        given = {"image": image, "kernel": kernel, "output_grad": output_grad}
        for name, values in given.items():
            symbols = getattr(self, name)
            if tuple(values.shape) != symbols.shape:
                raise ValueError(
                    f"{name} must have shape {symbols.shape}, as its symbols have; "
                    f"got {tuple(values.shape)}"
                )
            numbers = map(sympy.Float, values.double().flatten().tolist())
            number_of |= zip(symbols, numbers, strict=True)
        kernel_grad = self.kernel_grad.xreplace(number_of)
        image_grad = self.image_grad.xreplace(number_of)
        return _float64(kernel_grad), _float64(image_grad)


def symbolic_gradients(
    image_shape: tuple[int, int], kernel_shape: tuple[int, int]
) -> SymbolicGradients:
    """Derive the gradients of a one-channel convolution by differentiating its output.

    image_shape, kernel_shape: (rows, columns); stride 1, no padding.
    Raises TypeError for what is not a pair of ints; ValueError for a size below 1 and
    for a kernel larger than the image.
    """
    _check_pair("image_shape", image_shape)
    _check_pair("kernel_shape", kernel_shape)
    rows, columns = _output_size(image_shape, kernel_shape)

    image = _symbols("x_{i,j}", *image_shape)
    kernel = _symbols("k_{i,j}", *kernel_shape)
    output_grad = _symbols(r"\frac{\partial C}{\partial y_{i,j}}", rows, columns)

    # each output is the sum of the products of the kernel with the window at (i, j)
    def output_at(i: int, j: int) -> sympy.Expr:
        window = image[i : i + kernel_shape[0], j : j + kernel_shape[1]]
        return sum(kernel.multiply_elementwise(window))

    output = sympy.ImmutableMatrix(rows, columns, output_at)

    def derivative_of_cost(z: sympy.Symbol) -> sympy.Expr:
        """The chain rule: every output through which z reaches the cost."""
        pairs = zip(output_grad, output, strict=True)
        return sum(dc_dy * sympy.diff(y, z) for dc_dy, y in pairs)

    kernel_grad = kernel.applyfunc(derivative_of_cost)
    image_grad = image.applyfunc(derivative_of_cost)
    return SymbolicGradients(
        image, kernel, output_grad, output, kernel_grad, image_grad
    )


def _symbols(name: str, rows: int, columns: int) -> sympy.ImmutableMatrix:
    """A matrix of symbols, each named by its own indices, from 1, in place of i,j."""

    def symbol(i: int, j: int) -> sympy.Symbol:
        return sympy.Symbol(name.replace("i,j", f"{i + 1},{j + 1}"))

    return sympy.ImmutableMatrix(rows, columns, symbol)


def _float64(matrix: sympy.ImmutableMatrix) -> Tensor:
    return torch.from_numpy(sympy.matrix2numpy(matrix, dtype=float))


def bias_gradient(output_grad: Tensor) -> Tensor:
    """∂C/∂bias: a bias is added to every output of its channel, so its gradient is
    their sum.

    output_grad: [B, O, OH, OW]. Returns [O]. Raises ValueError for another rank.
    """
    _check_rank("output_grad", output_grad, "[B, O, OH, OW]")
    return output_grad.sum(dim=(0, 2, 3))


def weight_gradient(
    image: Tensor,
    output_grad: Tensor,
    kernel_size: tuple[int, int],
    stride: int = 1,
    padding: int = 0,
) -> Tensor:
    """∂C/∂weight: the padded image cross-correlated with the output's gradient.

    image: [B, C, H, W]; output_grad: [B, O, OH, OW]; kernel_size: (KH, KW), which the
    other shapes leave open where the stride does not divide. Returns [O, C, KH, KW].
    Raises TypeError or ValueError, naming the values, for what does not fit together.
    """
    _check_rank("image", image, "[B, C, H, W]")
    _check_rank("output_grad", output_grad, "[B, O, OH, OW]")
    output_size = _output_size(image.shape[2:], kernel_size, stride, padding)
    _check_shape(output_grad, (len(image), output_grad.shape[1], *output_size))
    kernel_height, kernel_width = kernel_size

    # the windows of the forward pass, [B, C, OH, OW, KH, KW]: element (i, j) of each is
    # the pixel that weight (i, j) met there, so it is also ∂y/∂weight
    windows = (
        zero_pad(image, padding)
        .unfold(2, kernel_height, stride)
        .unfold(3, kernel_width, stride)
    )
    return torch.einsum("bcyxij,boyx->ocij", windows, output_grad)


def input_gradient(
    output_grad: Tensor,
    weight: Tensor,
    image_size: tuple[int, int],
    stride: int = 1,
    padding: int = 0,
) -> Tensor:
    """∂C/∂image: the full correlation of the output's gradient with the flipped kernel.

    output_grad: [B, O, OH, OW]; weight: [O, C, KH, KW]; image_size: (H, W), which the
    other shapes leave open where the stride does not divide. Returns [B, C, H, W].
    Raises TypeError or ValueError, naming the values, for what does not fit together.
    """
    _check_rank("output_grad", output_grad, "[B, O, OH, OW]")
    _check_rank("weight", weight, "[O, C, KH, KW]")
    out_channels, _, kernel_height, kernel_width = weight.shape
    output_size = _output_size(image_size, weight.shape[2:], stride, padding)
    batch = len(output_grad)
    _check_shape(output_grad, (batch, out_channels, *output_size))
    height, width = image_size

    # the gradients where their windows began, zeros at the positions that the stride
    # skipped, and a border of kernel - 1 so that the kernel may hang over each edge
    rows = height + 2 * padding + kernel_height - 1
    columns = width + 2 * padding + kernel_width - 1
    spread = output_grad.new_zeros(batch, out_channels, rows, columns)
    begun = spread[:, :, kernel_height - 1 :: stride, kernel_width - 1 :: stride]
    begun[:, :, : output_size[0], : output_size[1]] = output_grad

    # one window for each pixel of the padded image, [B, O, H + 2p, W + 2p, KH, KW]
    windows = spread.unfold(2, kernel_height, 1).unfold(3, kernel_width, 1)
    padded_grad = torch.einsum("boyxij,ocij->bcyx", windows, weight.flip(2, 3))

    # the border was added by the padding: it is no part of the image
    return padded_grad[:, :, padding : padding + height, padding : padding + width]


def _output_size(
    image_size: tuple[int, int],
    kernel_size: tuple[int, int],
    stride: int = 1,
    padding: int = 0,
) -> tuple[int, int]:
    """(OH, OW) of a convolution; raises TypeError or ValueError where there is none."""
    _check_pair("image_size", image_size)
    _check_pair("kernel_size", kernel_size)
    whole_number("stride", stride, least=1)
    whole_number("padding", padding, least=0)
    rows, columns = (size + 2 * padding for size in image_size)
    if kernel_size[0] > rows or kernel_size[1] > columns:
        raise ValueError(
            f"a kernel of {tuple(kernel_size)} does not fit into an image of "
            f"{(rows, columns)}" + (" (padding included)" if padding else "")
        )
    down, across = rows - kernel_size[0], columns - kernel_size[1]
    return down // stride + 1, across // stride + 1


def _check_pair(name: str, pair: tuple[int, int]) -> None:
    if not isinstance(pair, tuple | list) or not all(isinstance(n, int) for n in pair):
        raise TypeError(f"{name} must be a pair of ints (rows, columns), got {pair!r}")
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(
            f"{name} must be two ints of at least 1 (rows, columns), got {pair!r}"
        )


def _check_rank(name: str, tensor: Tensor, layout: str) -> None:
    shape = tuple(tensor.shape)
    if len(shape) != 4:
        raise ValueError(f"{name} must be {layout}, got a tensor of shape {shape}")


def _check_shape(output_grad: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(output_grad.shape) != expected:
        raise ValueError(
            f"output_grad has shape {tuple(output_grad.shape)}, but the output of this "
            f"convolution has shape {expected}"
        )
