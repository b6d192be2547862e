"""Network steps that end: a time limit, one retry, and only checked files kept."""

import hashlib
import ssl
import time
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import TypeVar
from urllib.request import Request, urlopen

from src.common.files import write_atomically
from src.common.progress import LiveLog

Result = TypeVar("Result")

#: Seconds that a server may stay silent.
SILENCE = 20
#: Seconds that one network step may take altogether.
LIMIT = 900
#: Seconds before the second, and last, attempt.
PAUSE = 2


class SourceFailed(RuntimeError):
    """One source gave nothing that can be used; the text is why, in one line."""


def download(url: str, path: Path, algorithm: str, digest: str) -> None:
    """Fetch `url` into `path`, which then has the given digest or does not exist.

    The project has a downloader of its own, where torchvision's would do the same,
    because that one has no time limit and draws its progress on stderr.

    algorithm, digest: of `hashlib`, and the hexadecimal digits that the file's hash
    must begin with. Raises OSError when the server can't be reached, is too slow or
    the disk is full, and SourceFailed when what came is not the expected file.
    """

    def write(stream) -> None:
        found = hashlib.new(algorithm)
        request = Request(url, headers={"User-Agent": "python-urllib"})
        with urlopen(request, timeout=SILENCE) as response:
            size = int(response.headers.get("Content-Length", 0)) >> 20
            blocks = _megabytes(response)
            for block in LiveLog().track(blocks, f"{path.name} [MB]", size or None):
                stream.write(block)
                found.update(block)
        if not found.hexdigest().startswith(digest):
            raise SourceFailed(
                f"the download is incomplete or corrupt and was removed "
                f"({algorithm} {found.hexdigest()}, expected {digest})"
            )

    with_retry(lambda: write_atomically(path, write))


def _megabytes(response: HTTPResponse) -> Iterator[bytes]:
    """The body in blocks of about 1 MB; TimeoutError when it takes too long."""
    deadline = time.monotonic() + LIMIT
    block = bytearray()
    # read1 returns what has arrived, so that a trickle can't outlast the deadline
    while chunk := response.read1(1 << 16):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not finished after {LIMIT} s")
        block += chunk
        if len(block) >= 1 << 20:
            yield bytes(block)
            block.clear()
    yield bytes(block)


def with_retry(step: Callable[[], Result]) -> Result:
    """The result of `step`, tried once more when it raises an Exception."""
    try:
        return step()
    except Exception:
        time.sleep(PAUSE)
        return step()


def reason(error: Exception) -> str:
    """Why a source failed, in one line for the user."""
    if isinstance(error, SourceFailed):
        return str(error)
    cause = getattr(error, "reason", None)  # what lies behind a URLError
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            "this Python has no certificates (on macOS, run its "
            "`Install Certificates.command`)"
        )
    if isinstance(cause, OSError):
        return f"its host can't be reached ({cause.strerror or cause})"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
