"""Downloads against a server of our own that misbehaves in every way we know."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from src.common import downloads
from src.common.downloads import SourceFailed, download, reason, with_retry

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
        elif self.path == "/trickle":
            while not self.server.stop.wait(0.02):
                self.wfile.write(b"x")
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
    download(f"{server.url}/file", tmp_path / "new/file", "sha256", SHA256)
    assert (tmp_path / "new/file").read_bytes() == BODY
    assert names(tmp_path / "new") == ["file"]
    assert server.requests == ["/file"]


def test_prefix_of_the_digest_is_enough(server, tmp_path):
    download(f"{server.url}/file", tmp_path / "file", "sha256", SHA256[:8])
    assert (tmp_path / "file").read_bytes() == BODY


def test_second_attempt_helps(server, tmp_path):
    download(f"{server.url}/second-time", tmp_path / "file", "sha256", SHA256)
    assert (tmp_path / "file").read_bytes() == BODY
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("path", "digest", "limits", "error", "text"),
    [
        ("/missing", SHA256, {}, OSError, "503"),
        ("/truncated", SHA256, {}, SourceFailed, "incomplete or corrupt"),
        ("/file", "0" * 64, {}, SourceFailed, "incomplete or corrupt"),
        ("/silent", SHA256, {"SILENCE": 0.2}, TimeoutError, "timed out"),
        ("/trickle", SHA256, {"LIMIT": 0.2}, TimeoutError, "not finished after"),
    ],
    ids=["missing", "truncated", "another file", "silent", "trickle"],
)
def test_failure_leaves_the_old_file_and_no_litter(
    server, tmp_path, monkeypatch, path, digest, limits, error, text
):
    for name, seconds in limits.items():
        monkeypatch.setattr(downloads, name, seconds)
    (tmp_path / "file").write_bytes(b"an older one")
    with pytest.raises(error, match=text):
        download(server.url + path, tmp_path / "file", "sha256", digest)
    assert len(server.requests) == 2
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"an older one"


def test_dead_host(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError) as caught:
        download(f"{server.url}/file", tmp_path / "file", "sha256", SHA256)
    assert "can't be reached" in reason(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "attempts"), [(KeyboardInterrupt(), 1), (OSError(28, "No space"), 2)]
)
def test_interruption_and_full_disk_leave_nothing(
    server, tmp_path, monkeypatch, error, attempts
):
    """An interruption stops at once; a full disk is an error like others."""

    def fail(_):
        yield b"the first block"
        raise error

    monkeypatch.setattr(downloads, "_megabytes", fail)
    with pytest.raises(type(error)):
        download(f"{server.url}/file", tmp_path / "file", "sha256", SHA256)
    assert len(server.requests) == attempts
    assert names(tmp_path) == []


def test_with_retry_gives_up_after_the_second_attempt(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE", 0)
    attempts = []

    def step():
        attempts.append(len(attempts))
        raise ValueError(f"attempt {len(attempts)}")

    with pytest.raises(ValueError, match="attempt 2"):
        with_retry(step)
    assert attempts == [0, 1]


def test_reason_is_one_line_and_helps():
    import ssl
    from urllib.error import URLError

    assert reason(ValueError("two\nlines")) == "ValueError: two lines"
    assert reason(EOFError()) == "EOFError"
    assert reason(SourceFailed("npm is not installed")) == "npm is not installed"
    no_certificates = URLError(ssl.SSLCertVerificationError("unable to get issuer"))
    assert "Install Certificates.command" in reason(no_certificates)
