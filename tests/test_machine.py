"""What is said and measured of a machine, with and without a GPU."""

import datetime
import platform
import sys
from types import SimpleNamespace

import pytest
import torch
import torchvision

from src.common import machine

CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda", "mps"))


@pytest.mark.parametrize("gpu", [CUDA, MPS, None])
def test_a_gpu_is_used_where_there_is_one(monkeypatch, gpu):
    def current(check_available=False):
        return gpu if check_available else CUDA  # what torch was built for

    monkeypatch.setattr(torch.accelerator, "current_accelerator", current)
    assert machine.pick_device() == (gpu or CPU)


def test_devices_are_described(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"{device} X")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert machine.describe(CPU) == f"CPU ({platform.machine()}, 7 threads)"
    assert machine.describe(CUDA) == "cuda X"
    assert machine.describe(MPS) == "Apple GPU"


def test_provenance():
    assert machine.provenance(CPU, weights="w") == {
        "weights": "w",
        "torch": str(torch.__version__),
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "device": machine.describe(CPU),
        "date": datetime.date.today().isoformat(),
    }
    assert type(machine.provenance(CPU)["torch"]) is str


@pytest.mark.parametrize("device", [CPU, CUDA, MPS])
def test_a_gpu_has_finished_before_the_clock_is_read(monkeypatch, device):
    """Calls take 9 s (not counted), 1, 5 and 3 s, on a GPU after they have returned."""
    clock = SimpleNamespace(now=0.0, pending=0.0)
    calls = iter([9.0, 1.0, 5.0, 3.0])
    waited = []

    def call():
        clock.pending = next(calls)
        if device == CPU:
            finish(CPU)

    def finish(which):
        waited.append(which)
        clock.now += clock.pending

    monkeypatch.setattr(torch.accelerator, "synchronize", finish)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: clock.now)
    assert machine.median_seconds(call, device) == 3.0
    assert waited == [device] * 4


def test_repeats_are_as_many_as_asked_for():
    calls = []
    machine.median_seconds(lambda: calls.append(1), CPU, repeats=5)
    assert len(calls) == 6


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_peak_memory_is_in_gib(monkeypatch):
    import resource

    usage = SimpleNamespace(ru_maxrss=3 * 2**20)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    monkeypatch.setattr(sys, "platform", "linux")  # counts in KiB
    assert machine.peak_memory_gib() == 3
    monkeypatch.setattr(sys, "platform", "darwin")  # counts in bytes
    assert machine.peak_memory_gib() == 3 / 1024
    monkeypatch.setattr(sys, "platform", "win32")  # has no such module
    assert str(machine.peak_memory_gib()) == "nan"
