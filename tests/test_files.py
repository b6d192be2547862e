"""Files are whole or absent, whatever goes wrong while they are written."""

import hashlib

import pytest

from src.common.files import file_hash, write_atomically, write_text


@pytest.mark.parametrize("before", [None, b"an older one"])
@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there_and_no_litter(tmp_path, before, error):
    path = tmp_path / "file"
    if before:
        path.write_bytes(before)

    def fail(stream):
        stream.write(b"half a fi")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, fail)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([before] if before else [])


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new/folder/file"
    seen = []

    def write(stream):
        stream.write(b"first")
        seen.extend(path.parent.iterdir())
        stream.write(b", last")

    write_atomically(path, write)
    write_atomically(path, write)  # replaces
    assert path.read_bytes() == b"first, last"
    assert list(path.parent.iterdir()) == [path]
    assert seen[0].name.startswith("file.tmp")  # as .gitignore and `submit` know it
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode  # readable by others


def test_text_is_utf_8_with_unix_line_ends(tmp_path):
    write_text(tmp_path / "text", "שלום\n×\n")
    assert (tmp_path / "text").read_bytes() == "שלום\n×\n".encode()


def test_hash_is_sha_256(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert file_hash(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()
