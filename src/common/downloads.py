"""Downloads that end: a limit on silence, one retry, and only checked files kept.

torch.hub downloads and checks; time-out and second attempt are our own.
"""

import socket
import sys
import time
from pathlib import Path

import torch

#: Seconds that a server may stay silent, and before the second, and last, attempt.
SILENCE, PAUSE = 20, 2


class SourceFailed(RuntimeError):
    """One source gave nothing that can be used; the text is why, in one line."""


def download(url: str, path: Path, sha256: str, attempts: int = 2) -> None:
    """Fetch `url` into `path`, or leave that as it is and raise.

    sha256: what the file's SHA-256 must begin with; RuntimeError if it does not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    socket.setdefaulttimeout(SILENCE)
    try:  # a progress bar is for a terminal, never for a notebook to keep
        torch.hub.download_url_to_file(url, str(path), sha256, sys.stderr.isatty())
    except Exception:
        if attempts == 1:
            raise
        time.sleep(PAUSE)
        download(url, path, sha256, attempts - 1)
    finally:
        socket.setdefaulttimeout(None)


def reason(error: Exception) -> str:
    """Why a source failed, in one line for the user."""
    cause = getattr(error, "reason", None)  # what lies behind a URLError
    if isinstance(cause, OSError):
        return f"its host can't be reached ({cause.strerror or cause})"
    name = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
    return name + " ".join(str(error).split())
