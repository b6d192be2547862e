"""Downloads against a server of our own that misbehaves in every way we know."""

import hashlib
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import URLError

import pytest

from src.common import downloads
from src.common.downloads import SourceFailed, download, reason

BODY = bytes(range(256)) * 10_000  # 2.4 MB, several blocks
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """The path says how to misbehave."""

    def do_GET(self):
        self.server.requests.append(self.path)
        first = len(self.server.requests) == 1
        if self.path == "/missing" or (self.path == "/second-time" and first):
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        if self.path == "/silent":
            self.server.stop.wait()
        elif self.path == "/truncated":
            self.wfile.write(BODY[:-1000])
        else:
            self.wfile.write(BODY)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloads, "PAUSE", 0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # a client that hangs up is no error here
    server.requests, server.stop = [], threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    thread.join()
    server.server_close()


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_whole_file_arrives(server, tmp_path):
    download(f"{server.url}/file", tmp_path / "new/file", SHA256)
    assert (tmp_path / "new/file").read_bytes() == BODY
    assert names(tmp_path / "new") == ["file"]
    assert server.requests == ["/file"]
    assert socket.getdefaulttimeout() is None


def test_prefix_of_the_digest_is_enough(server, tmp_path):
    download(f"{server.url}/file", tmp_path / "file", SHA256[:8])
    assert (tmp_path / "file").read_bytes() == BODY


def test_second_attempt_helps(server, tmp_path):
    download(f"{server.url}/second-time", tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == BODY
    assert len(server.requests) == 2


def test_between_the_attempts_there_is_a_pause(server, tmp_path, monkeypatch):
    monkeypatch.undo()  # the fixture's
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    slept = []
    monkeypatch.setattr(downloads.time, "sleep", slept.append)
    download(f"{server.url}/second-time", tmp_path / "file", SHA256)
    assert slept == [2]
    assert downloads.SILENCE == 20


@pytest.mark.parametrize("terminal", [True, False])
def test_only_a_terminal_sees_a_progress_bar(
    server, tmp_path, monkeypatch, capsys, terminal
):
    """What is no terminal may be a notebook, which would keep it."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    download(f"{server.url}/file", tmp_path / "file", SHA256)
    printed = capsys.readouterr()
    assert ("100%" in printed.err) == terminal
    assert terminal or printed.err == ""
    assert printed.out == ""


@pytest.mark.parametrize(
    ("path", "digest", "error", "text"),
    [
        ("/missing", SHA256, OSError, "503"),
        ("/truncated", SHA256, RuntimeError, f'expected "{SHA256}"'),
        ("/file", "0" * 64, RuntimeError, f'got "{SHA256}"'),
        ("/silent", SHA256, TimeoutError, "timed out"),
    ],
    ids=["missing", "truncated", "another file", "silent"],
)
def test_failure_leaves_the_old_file_and_no_litter(
    server, tmp_path, monkeypatch, path, digest, error, text
):
    monkeypatch.setattr(downloads, "SILENCE", 0.2)
    (tmp_path / "file").write_bytes(b"an older one")
    with pytest.raises(error, match=text):
        download(server.url + path, tmp_path / "file", digest)
    assert socket.getdefaulttimeout() is None
    assert len(server.requests) == 2
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"an older one"


def test_dead_host(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError) as caught:
        download(f"{server.url}/file", tmp_path / "file", SHA256)
    assert reason(caught.value) == "its host can't be reached (Connection refused)"
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "attempts"), [(KeyboardInterrupt(), 1), (OSError(28, "No space"), 2)]
)
def test_interruption_and_full_disk_leave_nothing(
    server, tmp_path, monkeypatch, error, attempts
):
    """An interruption stops at once; a full disk is an error like others."""

    def fail(*_):
        raise error

    monkeypatch.setattr(downloads.torch.hub.shutil, "move", fail)
    with pytest.raises(type(error)):
        download(f"{server.url}/file", tmp_path / "file", SHA256)
    assert len(server.requests) == attempts
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("two\n lines"), "ValueError: two lines"),
        (SourceFailed("npm is not installed"), "npm is not installed"),
        (RuntimeError("invalid hash value"), "invalid hash value"),
        (URLError(TimeoutError("timed out")), "its host can't be reached (timed out)"),
        (URLError(OSError(111, "refused")), "its host can't be reached (refused)"),
    ],
)
def test_reason_is_one_line_and_helps(error, text):
    assert reason(error) == text
