"""The machine that all this runs on: its device, how long things take, memory used."""

import datetime
import platform
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise

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


def median_seconds(function: Callable, device: torch.device, repeats: int = 3) -> float:
    """Median time of a call until a GPU, too, is done; the first does not count."""

    def finished() -> float:
        function()
        if device.type != "cpu":  # it works on after a call has returned
            torch.accelerator.synchronize(device)
        return time.perf_counter()

    clock = [finished() for _ in range(repeats + 1)]
    return statistics.median(end - start for start, end in pairwise(clock))


def peak_memory_gib() -> float:
    """The most memory, in GiB, that this process has held at once; nan on Windows."""
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20
