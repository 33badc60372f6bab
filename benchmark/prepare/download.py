"""One file over HTTP: resumed where it broke off, compared with a known sha256, never half of it under its name."""

from __future__ import annotations

import fcntl
import http.client
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from adlbench.benchmark.api import DataError, file_sha256

PIECE = 1 << 20  # bytes read at a time
ATTEMPTS = 5  # in a row without a single byte
MAX_BYTES = 1 << 40  # of a file whose size is not known beforehand
Progress = Callable[[str, int, int], None]  # what, bytes done, bytes in all (0: unknown)


def download(
    url: str,
    target: Path,
    sha256: str,
    size: int = 0,
    progress: Progress = lambda what, done, total: None,
    timeout: float = 30.0,
    pause: float = 1.0,
) -> None:
    """Bring ``url`` to ``target``; does nothing when the right file is there. Safe to call again after any interruption.

    What has arrived is kept in ``target.part``, and the next attempt asks the server for the rest. ``size`` in bytes, 0
    when unknown; ``timeout`` in seconds without data; ``pause`` in seconds before the second attempt, doubled each time.
    Raises DataError when the server cannot be reached, or when the file is not the one with that ``sha256``.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise DataError(f"{url} is no http(s) address; correct it in the dataset's YAML")
    if target.is_file():
        if file_sha256(target) == sha256:
            return
        raise DataError(f"{target} is there and is not the published file (another sha256); move it away to fetch it")
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file = part.open("ab")
    except OSError as error:
        raise DataError(
            f"{part} cannot be written ({error.strerror}); set $ADLBENCH_DATA to a folder that can be"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"{part} is being written by another process; wait until it has ended") from None
        _complete(url, file, target, size, progress, timeout, pause)
        found = file_sha256(part)
        if found != sha256:
            part.unlink()
            raise DataError(
                f"{url} gave a file with sha256 {found[:16]}…, not {sha256[:16]}…: it was changed or damaged on its way, "
                "and has been deleted. Try again; if it stays so, get the file elsewhere"
            )
        os.replace(part, target)


def _complete(
    url: str, file: IO[bytes], target: Path, size: int, progress: Progress, timeout: float, pause: float
) -> None:
    """Append to ``file`` until it is whole, over as many connections as that takes."""
    failures = 0
    while True:
        before = file.tell()
        try:
            if _append(url, file, target, size, progress, timeout):
                return
            reason = "the connection ended early"
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and before:  # nothing left to send, or not what we have the beginning of
                if before == size or (size == 0 and error.headers.get("Content-Range") == f"bytes */{before}"):
                    return
                file.truncate(0)
                reason = "what was there did not fit"
            elif error.code in (408, 425, 429) or error.code >= 500:
                reason = f"the server answers {error.code}"
            else:
                raise DataError(
                    f"{url}: the server answers {error.code} {error.reason}; get the file elsewhere and put it at {target}"
                ) from None
        except (OSError, http.client.HTTPException) as error:  # URLError, timeouts and resets are OSErrors
            reason = str(getattr(error, "reason", "") or error or type(error).__name__)
        failures = failures + 1 if file.tell() <= before else 0
        if failures >= ATTEMPTS:
            raise DataError(
                f"{url} cannot be fetched ({reason}): is this machine offline? Try again, it goes on at byte "
                f"{file.tell():,}; or put the file at {target}"
            )
        time.sleep(pause * 2 ** max(0, failures - 1))


def _append(url: str, file: IO[bytes], target: Path, size: int, progress: Progress, timeout: float) -> bool:
    """One connection. Whether the file is whole afterwards, as far as the server's announcement tells."""
    begin = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"User-Agent": "adlbench", "Accept-Encoding": "identity"})
    if begin:
        request.add_header("Range", f"bytes={begin}-")
    with urllib.request.urlopen(request, timeout=timeout) as response:
        if begin and not (
            response.status == 206 and str(response.headers.get("Content-Range")).startswith(f"bytes {begin}-")
        ):
            file.truncate(0)  # a server that does not resume sends all of it
            begin = file.seek(0)
        length = response.headers.get("Content-Length")
        announced = begin + int(length) if length and length.isdigit() else 0
        if size and announced and announced != size:
            raise DataError(f"{url} is {announced:,} bytes and the published file {size:,}; get the file elsewhere")
        total = size or announced
        free = shutil.disk_usage(target.parent).free
        if total - begin > free:
            raise DataError(
                f"{target.parent} has {free:,} bytes free and {url} needs {total - begin:,}; make room there"
            )
        done = begin
        while piece := response.read(PIECE):
            done += len(piece)
            if done > (total or MAX_BYTES):
                file.truncate(0)
                raise DataError(
                    f"{url} sends more than the {total or MAX_BYTES:,} bytes it should; get the file elsewhere"
                )
            file.write(piece)
            file.flush()
            progress(target.name, done, total)
    return done == total if total else True
