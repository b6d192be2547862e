"""PSNR and SSIM on cases worked out by hand, and against torchmetrics."""

import math

import numpy as np
import pytest
import torch
from torch import tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from src.vision_tasks.shared.image_quality import psnr, ssim

RED_GREEN_BLUE = (0.299, 0.587, 0.114)


def noisy_pair(*shape: int) -> torch.Tensor:
    """Images and their truths, [2, *shape] in float64."""
    torch.manual_seed(0)
    truth = torch.rand(shape, dtype=torch.float64)
    return torch.stack([(truth + 0.2 * torch.randn_like(truth)).clamp(0, 1), truth])


def test_psnr_by_hand():
    truth = torch.zeros(2, 3, 2, 2)
    images = truth.clone()
    images[0] += 0.1  # MSE 0.01
    images[1, 0, 0, 0] = 1.0  # one of twelve values is wrong by 1: MSE 1/12
    expected = tensor([20.0, 10 * math.log10(12)])
    torch.testing.assert_close(psnr(images, truth), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_is_that_of_torchmetrics(channels):
    images, truth = noisy_pair(4, channels, 6, 9)
    expected = peak_signal_noise_ratio(
        images, truth, data_range=1.0, reduction="none", dim=(1, 2, 3)
    )
    torch.testing.assert_close(psnr(images, truth), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_psnr_where_it_counts(dtype):
    truth = torch.zeros(2, 3, 4, 4)
    images = truth.clone()
    images[..., 0, 0] = 0.1
    images[..., 3, 3] = 1.0
    where = torch.zeros(2, 1, 4, 4, dtype=dtype)
    where[:, :, 0, 0] = 1
    where[1, :, 3, 3] = 5  # whichever number, if it is not 0
    expected = tensor([20.0, -10 * math.log10(1.01 / 2)])
    torch.testing.assert_close(psnr(images, truth, where), expected)


def test_psnr_of_equal_images_is_infinite():
    images = torch.rand(1, 3, 4, 4)
    assert psnr(images, images).item() == math.inf


def test_ssim_of_constant_images_is_the_luminance_term():
    a, b, c1 = 0.2, 0.6, 0.01**2
    images, truth = (
        torch.full((1, 3, 16, 16), value, dtype=torch.float64) for value in (a, b)
    )
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    assert ssim(images, truth).item() == pytest.approx(expected, rel=1e-9)


def test_ssim_of_one_window_by_its_definition():
    images, truth = noisy_pair(1, 3, 11, 11)
    place = np.arange(11) - 5
    weights = np.exp(-(place[:, None] ** 2 + place**2) / (2 * 1.5**2))
    weights /= weights.sum()
    x, y = (
        np.tensordot(RED_GREEN_BLUE, part[0].numpy(), 1) for part in (images, truth)
    )
    mx, my = (weights * x).sum(), (weights * y).sum()
    vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
    covariance = (weights * (x - mx) * (y - my)).sum()
    expected = ((2 * mx * my + 1e-4) * (2 * covariance + 9e-4)) / (
        (mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)
    )
    assert ssim(images, truth).item() == pytest.approx(expected, rel=1e-6)


def test_ssim_is_that_of_torchmetrics_on_the_luminance():
    """Each image for itself; torchmetrics also has windows that lie partly outside."""
    pair = noisy_pair(3, 3, 14, 23)
    images, truth = torch.einsum(
        "pbchw,c->pbhw", pair, tensor(RED_GREEN_BLUE, dtype=torch.float64)
    ).unsqueeze(2)
    _, windows = structural_similarity_index_measure(
        images, truth, data_range=1.0, reduction="none", return_full_image=True
    )
    expected = windows[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
    torch.testing.assert_close(ssim(*pair), expected, rtol=1e-6, atol=0)


def test_ssim_is_one_for_equal_images_and_falls_with_noise():
    torch.manual_seed(0)
    truth = torch.rand(3, 3, 24, 32)
    noise = torch.randn_like(truth)
    values = [ssim(truth + size * noise, truth) for size in (0, 0.1, 0.3)]
    torch.testing.assert_close(values[0], torch.ones(3))
    assert (values[0] > values[1]).all() and (values[1] > values[2]).all()


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_images_of_different_shapes_are_refused(measure):
    images = torch.rand(1, 3, 16, 16)
    named = r"same shape \[B, C, H, W\], got \[1, 3, 16, 16\] and \[1, 1, 16, 16\]"
    with pytest.raises(ValueError, match=named):
        measure(images, images[:, :1])
    with pytest.raises(ValueError, match="same shape"):
        measure(images[0], images[0])


def test_errors_say_what_is_wrong():
    images = torch.rand(2, 3, 16, 16)
    where = torch.zeros(2, 1, 16, 16)
    where[0] = 1
    with pytest.raises(ValueError, match="no pixel that counts"):
        psnr(images, images, where)
    for small in (images[..., :10, :], images[..., :10]):
        size = f"{small.shape[2]} x {small.shape[3]}"
        with pytest.raises(ValueError, match=f"at least 11 x 11 pixels, got {size}"):
            ssim(small, small)
    assert ssim(images[..., :11, :11], images[..., :11, :11]).shape == (2,)
