"""Downloads against a server on loopback that behaves, breaks off, ignores ranges, lies, and is not there."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adlbench.benchmark.api import DataError
from adlbench.benchmark.prepare import download as module
from adlbench.benchmark.prepare.download import download

CONTENT = bytes(range(256)) * 1000  # 256,000 bytes
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    content = CONTENT
    ranges = True  # whether requests for a part are answered with a part
    break_after: int | None = None  # bytes after which a connection is closed, while ``breaks`` lasts
    breaks = 0
    status: int | None = None  # an answer without content
    length: int | None = None  # announced instead of the true one
    asked: list[str | None]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.status is not None:
            self.send_error(server.status)
            return
        begin = int(re.findall(r"\d+", wanted)[0]) if wanted and server.ranges else 0
        if begin >= len(server.content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.end_headers()
            return
        body = server.content[begin:]
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(server.length or len(body)))
        self.end_headers()
        if server.breaks and server.break_after is not None:
            server.breaks -= 1
            body = body[: server.break_after]
        with contextlib.suppress(ConnectionError):  # the client may have heard enough
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server(("127.0.0.1", 0), Handler)
    found.asked = []
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def fetch(server: Server, target: Path, **changes: Any) -> None:
    url = f"http://127.0.0.1:{server.server_address[1]}/file.bin"
    download(**{"url": url, "target": target, "sha256": SHA256, "timeout": 5.0, "pause": 0.0} | changes)


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    target = tmp_path / "new" / "file.bin"
    fetch(server, target, size=len(CONTENT), progress=lambda *args: seen.append(args))
    assert target.read_bytes() == CONTENT
    assert seen[-1] == ("file.bin", len(CONTENT), len(CONTENT))
    fetch(server, target)
    assert server.asked == [None]
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("size", [0, len(CONTENT)])
def test_a_connection_that_breaks_is_taken_up_where_it_broke(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(module, "PIECE", 1000)
    server.break_after, server.breaks = 100_000, 2
    fetch(server, tmp_path / "file.bin", size=size)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]


def test_another_process_takes_up_what_a_killed_one_left(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:250_000])
    fetch(server, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == ["bytes=250000-"]


def test_a_killed_one_may_have_had_all_of_it(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    fetch(server, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_server_that_does_not_resume_sends_all_of_it(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:100])
    fetch(server, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_rubbish_that_is_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * 300_000)
    fetch(server, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_wrong_hash_is_refused_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"\0"
    with pytest.raises(DataError, match=f"gave a file with sha256 .*, not {SHA256[:16]}"):
        fetch(server, tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []
    server.content = CONTENT
    fetch(server, tmp_path / "file.bin")  # and can be mended


def test_another_size_is_refused_before_it_is_fetched(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="256,000 bytes and the published file 1,000"):
        fetch(server, tmp_path / "file.bin", size=1000)
    assert (tmp_path / "file.bin.part").stat().st_size == 0


def test_more_than_the_disk_holds_is_refused(server: Server, tmp_path: Path) -> None:
    server.length = 1 << 60
    with pytest.raises(DataError, match="make room"):
        fetch(server, tmp_path / "file.bin")


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_is_not_there_is_said_at_once(server: Server, tmp_path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(DataError, match=f"the server answers {status}.*put it at {tmp_path}/file.bin"):
        fetch(server, tmp_path / "file.bin")
    assert len(server.asked) == 1


def test_a_server_in_trouble_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.status = 503
    with pytest.raises(DataError, match="the server answers 503"):
        fetch(server, tmp_path / "file.bin")
    assert len(server.asked) == module.ATTEMPTS


def test_offline(server: Server, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{server.server_address[1]}/file.bin"
    server.server_close()
    with pytest.raises(DataError, match=r"refused.*offline\? .*or put the file at .*file.bin"):
        download(url, tmp_path / "file.bin", SHA256, timeout=1.0, pause=0.0)


def test_only_the_web(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(CONTENT)
    with pytest.raises(DataError, match="no http"):
        download(f"file://{tmp_path}/secret", tmp_path / "file.bin", SHA256)


def test_the_users_own_file_is_not_overwritten(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(b"mine")
    with pytest.raises(DataError, match="is not the published file"):
        fetch(server, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == b"mine"


def test_two_at_once_do_not_mix(server: Server, tmp_path: Path) -> None:
    started, go_on = threading.Event(), threading.Event()

    def wait(*args: Any) -> None:
        started.set()
        go_on.wait(10)

    first = threading.Thread(target=partial(fetch, server, tmp_path / "file.bin", progress=wait))
    first.start()
    assert started.wait(10)
    with pytest.raises(DataError, match="by another process"):
        fetch(server, tmp_path / "file.bin")
    go_on.set()
    first.join()
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
