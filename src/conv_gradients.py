"""Question 2: back-propagation through a convolution, in symbols and in numbers.

"Convolution" is what deep learning calls by that name, cross-correlation: the kernel is
not flipped. With C the cost, and the output's gradient ∂C/∂Y given, the chain rule is

    ∂C/∂z = Σ over outputs y of  ∂C/∂y · ∂y/∂z        for any kernel element or pixel z.

The first three functions apply exactly that to symbols: one channel, stride 1, no
padding. The fourth adds up the same terms in tensors, for any channels, stride and
padding, without autograd. The notebook shows all four in its cells.
"""

import sympy
import torch
from torch import Tensor

from src.conv import zero_pad


def symbols(name: str, rows: int, columns: int) -> sympy.Matrix:
    """A matrix of symbols, each with its own indices, from 1, in place of i,j."""
    indices = [(i + 1, j + 1) for i in range(rows) for j in range(columns)]
    names = [name.replace("i,j", f"{i},{j}") for i, j in indices]
    return sympy.Matrix(rows, columns, [sympy.Symbol(name) for name in names])


def cross_correlate(a: sympy.Matrix, b: sympy.Matrix) -> sympy.Matrix:
    """Slide b over a: each element is the sum of b times one window of a."""

    def element(i: int, j: int) -> sympy.Expr:
        window = a[i : i + b.rows, j : j + b.cols]
        return sum(b.multiply_elementwise(window))

    return sympy.Matrix(a.rows - b.rows + 1, a.cols - b.cols + 1, element)


def chain_rule(
    output: sympy.Matrix, output_grad: sympy.Matrix, variables: sympy.Matrix
) -> sympy.Matrix:
    """∂C/∂z for each variable z: the sum of ∂C/∂y · ∂y/∂z over all outputs y."""
    sums = []
    for z in variables:
        terms = output_grad.multiply_elementwise(output.diff(z))
        sums.append(sum(terms))
    return sympy.Matrix(variables.rows, variables.cols, sums)


def convolution_gradients(
    image: Tensor,
    weight: Tensor,
    output_grad: Tensor,
    stride: int = 1,
    padding: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """∂C/∂image, ∂C/∂weight and ∂C/∂bias from output_grad, which is ∂C/∂output.

    image: [B, C, H, W]; weight: [O, C, KH, KW]; output_grad: [B, O, OH, OW].
    """
    padded = zero_pad(image, padding)
    padded_grad, weight_grad = torch.zeros_like(padded), torch.zeros_like(weight)
    height, width = image.shape[2:]
    out_height, out_width = output_grad.shape[2:]
    for a in range(weight.shape[2]):
        for b in range(weight.shape[3]):
            # the pixels that weight (a, b) meets, one for each output: [B, C, OH, OW]
            rows = slice(a, a + stride * out_height, stride)
            columns = slice(b, b + stride * out_width, stride)
            met = padded[:, :, rows, columns]
            # sum over n, i, j of output_grad[n, o, i, j] · met[n, c, i, j]
            weight_grad[:, :, a, b] = torch.einsum("noij,ncij->oc", output_grad, met)
            # they get the sum over o of weight[o, c, a, b] · output_grad[n, o, i, j]
            share = torch.einsum("oc,noij->ncij", weight[:, :, a, b], output_grad)
            padded_grad[:, :, rows, columns] += share
    # the frame of zeros is no part of the image
    image_grad = padded_grad[:, :, padding:, padding:][:, :, :height, :width]
    return image_grad, weight_grad, output_grad.sum((0, 2, 3))
