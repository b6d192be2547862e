"""PSNR and SSIM on cases worked out by hand."""

import math

import numpy as np
import pytest
import torch

from src.vision_tasks.shared.image_quality import psnr, ssim


def test_psnr_by_hand():
    truth = torch.zeros(2, 3, 2, 2)
    images = truth.clone()
    images[0] += 0.1  # MSE 0.01
    images[1, 0, 0, 0] = 1.0  # one of twelve values is wrong by 1: MSE 1/12
    expected = torch.tensor([20.0, 10 * math.log10(12)])
    torch.testing.assert_close(psnr(images, truth), expected)


def test_psnr_where_it_counts():
    truth = torch.zeros(1, 3, 4, 4)
    images = truth.clone()
    images[..., 0, 0] = 0.1
    images[..., 3, 3] = 1.0
    where = torch.zeros(1, 1, 4, 4)
    where[..., 0, 0] = 1
    assert psnr(images, truth, where).item() == pytest.approx(20, abs=1e-4)
    where[..., 3, 3] = 1
    assert psnr(images, truth, where).item() == pytest.approx(
        -10 * math.log10(1.01 / 2), abs=1e-4
    )


def test_psnr_of_equal_images_is_infinite():
    images = torch.rand(1, 3, 4, 4)
    assert psnr(images, images).item() == math.inf


def test_ssim_of_constant_images_is_the_luminance_term():
    a, b, c1 = 0.2, 0.6, 0.01**2
    images, truth = torch.full((1, 3, 16, 16), a), torch.full((1, 3, 16, 16), b)
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    assert ssim(images, truth).item() == pytest.approx(expected, abs=1e-3)


def test_ssim_of_one_window_by_its_definition():
    torch.manual_seed(0)
    images, truth = torch.rand(2, 1, 3, 11, 11, dtype=torch.float64)
    place = np.arange(11) - 5
    weights = np.exp(-(place[:, None] ** 2 + place**2) / (2 * 1.5**2))
    weights /= weights.sum()
    red_green_blue = np.array([0.299, 0.587, 0.114])
    x, y = (
        np.tensordot(red_green_blue, part[0].numpy(), 1) for part in (images, truth)
    )
    mx, my = (weights * x).sum(), (weights * y).sum()
    vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
    covariance = (weights * (x - mx) * (y - my)).sum()
    expected = ((2 * mx * my + 1e-4) * (2 * covariance + 9e-4)) / (
        (mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)
    )
    assert ssim(images, truth).item() == pytest.approx(expected, rel=1e-6)


def test_ssim_is_one_for_equal_images_and_falls_with_noise():
    torch.manual_seed(0)
    truth = torch.rand(3, 3, 24, 32)
    noise = torch.randn_like(truth)
    values = [ssim(truth + size * noise, truth) for size in (0, 0.1, 0.3)]
    torch.testing.assert_close(values[0], torch.ones(3))
    assert (values[0] > values[1]).all() and (values[1] > values[2]).all()


def test_errors_say_what_is_wrong():
    images = torch.rand(1, 3, 16, 16)
    with pytest.raises(ValueError, match="same shape"):
        psnr(images, images[:, :1])
    with pytest.raises(ValueError, match="no pixel that counts"):
        psnr(images, images, torch.zeros(1, 1, 16, 16))
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(images[..., :8, :8], images[..., :8, :8])
