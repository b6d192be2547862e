"""How close an image is to the true one: PSNR and SSIM, one number for each image."""

import torch
from torch import Tensor
from torch.nn.functional import conv2d

#: Window of SSIM: side and standard deviation in pixels; and the constants K1 and K2.
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
#: Weights of red, green and blue in the luminance (ITU-R BT.601).
LUMINANCE = (0.299, 0.587, 0.114)


def psnr(images: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image, over all pixels and channels.

    10 log10(1 / MSE), for values in [0, 1]; infinite for equal images.
    images, truth: [B, C, H, W]; where: [B, 1, H, W], not 0 at the pixels that count.
    Returns [B].
    """
    _check(images, truth)
    errors = (images - truth).square().mean(dim=1, keepdim=True)  # [B, 1, H, W]
    counted = torch.ones_like(errors) if where is None else (where != 0).float()
    pixels = counted.sum(dim=(1, 2, 3))
    if not pixels.all():
        raise ValueError("an image has no pixel that counts: `where` is 0 all over")
    mse = (errors * counted).sum(dim=(1, 2, 3)) / pixels
    return -10 * mse.log10()


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each image's luminance, averaged over its windows.

    Wang et al., 2004 (https://doi.org/10.1109/TIP.2003.819861): Gaussian windows of
    11 x 11 pixels, sigma 1.5, all those that lie within the image; K1 = 0.01 and
    K2 = 0.03 for values in [0, 1]. It is 1 for equal images, at most 1 for others.
    images, truth: [B, 3, H, W], H and W at least 11. Returns [B].
    """
    _check(images, truth)
    if min(images.shape[2:]) < WINDOW:
        raise ValueError(
            f"SSIM needs images of at least {WINDOW} x {WINDOW} pixels, "
            f"got {images.shape[2]} x {images.shape[3]}"
        )
    weights = images.new_tensor(LUMINANCE).view(1, 3, 1, 1)
    x = (images * weights).sum(1, keepdim=True)  # [B, 1, H, W]
    y = (truth * weights).sum(1, keepdim=True)
    mean_x, mean_y = window_mean(x), window_mean(y)  # [B, 1, H - 10, W - 10]
    variance_x = window_mean(x * x) - mean_x**2
    variance_y = window_mean(y * y) - mean_y**2
    covariance = window_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x**2 + mean_y**2 + K1**2)
    structure = (2 * covariance + K2**2) / (variance_x + variance_y + K2**2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def window_mean(x: Tensor) -> Tensor:
    """Gaussian mean of every window: [B, 1, H, W] to [B, 1, H - 10, W - 10]."""
    place = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = torch.exp(-(place**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()
    # A two-dimensional Gaussian is a product: first along the rows, then the columns.
    x = conv2d(x, weights.view(1, 1, 1, WINDOW))
    return conv2d(x, weights.view(1, 1, WINDOW, 1))


def _check(images: Tensor, truth: Tensor) -> None:
    if images.shape != truth.shape or images.ndim != 4:
        raise ValueError(
            "expected two tensors of the same shape [B, C, H, W], got "
            f"{list(images.shape)} and {list(truth.shape)}"
        )
