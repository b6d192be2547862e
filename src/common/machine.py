"""The machine that all this runs on: its device, and the versions of libraries."""

import datetime
import platform

import torch
import torchvision


def pick_device() -> torch.device:
    """The GPU (CUDA, or Apple's MPS) where there is one, else the CPU."""
    gpu = torch.accelerator.current_accelerator(check_available=True)
    return gpu or torch.device("cpu")


def describe(device: torch.device) -> str:
    """One short phrase for the reader, e.g. "CPU (x86_64, 2 threads)"."""
    if device.type == "cpu":
        return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "Apple GPU"


def provenance(device: torch.device, **more: str) -> dict[str, str]:
    """What a result depends on besides the code: versions, device, date, and `more`."""
    return more | {
        "torch": str(torch.__version__),  # else of a class of its own
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "device": describe(device),
        "date": str(datetime.date.today()),
    }


def has_bfloat16(device: torch.device) -> bool:
    """Whether it computes with bfloat16 faster than with float32.

    A CPU without such instructions can be seven times slower with it, one with them was
    1.7 times as fast.
    """
    if device.type == "cpu":
        return getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return device.type == "cuda" and torch.cuda.is_bf16_supported()
