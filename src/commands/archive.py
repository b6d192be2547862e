"""ZIP files that are the same bytes whenever their contents are the same."""

import zipfile
from pathlib import Path
from typing import BinaryIO

from src.common.files import write_atomically


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    """Write a ZIP of these files, atomically: sorted, of one date and with one mode.

    (The same bytes with the same version of zlib.)
    """

    def write(stream: BinaryIO) -> None:
        with zipfile.ZipFile(stream, "w") as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(name)  # of 1 January 1980
                entry.create_system = 3  # Unix, on Windows too
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED, 9)

    write_atomically(path, write)
