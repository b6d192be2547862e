"""The machine a notebook runs on: its device, how long things take, memory used."""

import datetime
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torchvision


def pick_device() -> torch.device:
    """A CUDA GPU, else Apple's (MPS), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def describe(device: torch.device) -> str:
    """One short phrase for the reader, e.g. "CPU (x86_64, 2 threads)"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU (MPS)"
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def provenance(device: torch.device, **more: str) -> dict[str, str]:
    """What a result depends on besides the code: versions, device, date, and `more`."""
    return {
        **more,
        "torch": str(torch.__version__),  # else of a class of its own
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "device": describe(device),
        "date": str(datetime.date.today()),
    }


def synchronise(device: torch.device) -> None:
    """Wait until a GPU, which works on after a call has returned, has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def median_seconds(
    function: Callable[[], object], device: torch.device, repeats: int = 3
) -> float:
    """Median time of a call, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        synchronise(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def peak_memory_gib() -> float:
    """The most memory, in GiB, that this process has held at once; nan on Windows."""
    if os.name == "nt":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20
