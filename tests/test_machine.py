"""What is said and measured of a machine, with and without a GPU."""

import datetime
import platform

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
