"""Freed memory stays in the process: on glibc, unless the user decides otherwise."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from src.common import memory
from src.common.project import ROOT

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc only")

#: Page faults of five tensors of 100 MB, taken and given back one after the other.
FAULTS = """
import resource
from src.common.project import require_packages
require_packages()
import torch

def faults():
    torch.empty(25 * 2**20).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before, *_, after = [faults() for _ in range(16)][-6:]
print(after - before)
"""


@GLIBC
@pytest.mark.parametrize(
    ("own", "least", "most"),
    [({}, 0, 100), ({"MALLOC_MMAP_THRESHOLD_": "1000000"}, 200, 130_000)],
)
def test_pages_are_fetched_once_unless_the_user_says_how(own, least, most):
    """Pages of 4 KiB are 25,600 for each tensor; huge ones, of 2 MiB, are 50."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    printed = subprocess.run(
        [sys.executable, "-c", FAULTS],
        cwd=ROOT,
        env=plain | own,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert least <= int(printed) <= most


@pytest.mark.parametrize(
    ("libc", "variables"),
    [
        ("", {}),  # musl, macOS, Windows
        ("glibc", {"MALLOC_ARENA_MAX": "2"}),
        ("glibc", {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1"}),
    ],
)
def test_where_nothing_is_changed(monkeypatch, libc, variables):
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: (libc, ""))
    monkeypatch.setattr(memory.os, "environ", variables)
    monkeypatch.setattr(memory.ctypes, "CDLL", pytest.fail)
    memory.keep_freed_memory()


@pytest.mark.parametrize(("most", "threshold"), [(2**40, 2**30), (2**25, 2**25)])
def test_an_older_glibc_takes_a_lower_threshold(monkeypatch, most, threshold):
    taken = {}

    def mallopt(parameter: int, value: int) -> bool:
        fits = parameter != memory.M_MMAP_THRESHOLD or value <= most
        return fits and not taken.update({parameter: value})

    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("glibc", "2.31"))
    monkeypatch.setattr(memory.os, "environ", {})
    monkeypatch.setattr(
        memory.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt)
    )
    memory.keep_freed_memory()
    assert taken == {-1: 2**31 - 1, -2: 2**28, -3: threshold}
