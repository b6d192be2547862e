"""Memory that big tensors leave is kept for the next ones, on Linux.

glibc gives each big block back to the kernel as soon as it is free. The next step takes
the same again, and every page of 4 KiB is fetched and cleared anew: a pass through
ResNet-18, or a step of three blocks, took 1.6 times as long. Standard library only.
"""

import ctypes
import os
import platform

#: Parameters of mallopt(3), by their numbers in glibc's malloc.h; values are in bytes.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Tell glibc so, where there is one that the user has not given other values."""
    own = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if own or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt  # returns 0 where it refuses a value
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # this much may be free before some goes back
    mallopt(M_TOP_PAD, 2**28)  # this much more is taken than is needed
    if not mallopt(M_MMAP_THRESHOLD, 2**30):  # blocks from this size on go back at once
        mallopt(M_MMAP_THRESHOLD, 2**25)  # the most that an older glibc takes
