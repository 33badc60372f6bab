"""Archives (zip; tar, plain or compressed) into a folder, and into nothing but that folder.

What an archive says of itself is not believed: names are checked, links and devices are refused, and bytes are counted as
they are written. Files arrive in a folder beside their destination first, so that a refused archive leaves nothing.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from adlbench.benchmark.api import DataError

PIECE = 1 << 20  # bytes copied at a time
MAX_MEMBERS = 5_000_000
MAX_RATIO = 200  # of unpacked to packed bytes; pictures, text and label maps stay far below
MIN_ALLOWANCE = 1 << 26  # bytes that any archive may unpack to
MAX_HEADER = 1 << 24  # bytes of one header of a tar
OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)


def unpack(archive: Path, folder: Path, max_bytes: int | None = None) -> list[Path]:
    """The files of ``archive`` below ``folder``, which is made when it is not there; files of the same name are replaced.

    ``max_bytes`` bounds what may be written, by default 200 times the archive and what the disk has free. Raises
    DataError, naming the archive and the member, for names that leave the folder, links, devices, encrypted or damaged
    members, and more bytes than allowed; nothing is written then.
    """
    if not archive.is_file():
        raise DataError(f"{archive} does not exist; put the archive there")
    folder.mkdir(parents=True, exist_ok=True)
    allowed = max_bytes if max_bytes is not None else max(MIN_ALLOWANCE, MAX_RATIO * archive.stat().st_size)
    allowed = min(allowed, shutil.disk_usage(folder).free)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as beside:
        try:
            members = _zip_members if _magic(archive) == b"PK" else _tar_members
            names = _write(archive, members(archive, allowed), Path(beside), allowed)
        except DAMAGE as error:
            raise DataError(
                f"{archive} is damaged ({str(error)[:160] or type(error).__name__}); fetch it again"
            ) from None
        except OSError as error:
            raise DataError(f"{archive} cannot be unpacked into {folder} ({error})") from None
        return _move(archive, names, Path(beside), folder)


def _write(archive: Path, members: Iterator[tuple[str, IO[bytes]]], folder: Path, allowed: int) -> list[PurePosixPath]:
    names: list[PurePosixPath] = []
    for name, content in members:
        inner = _inside(archive, name)
        if len(names) >= MAX_MEMBERS:
            raise DataError(f"{archive} holds more than {MAX_MEMBERS:,} files; it is not what it should be")
        path = folder / inner
        path.parent.mkdir(parents=True, exist_ok=True)
        with content, path.open("wb") as file:
            while piece := content.read(PIECE):
                allowed -= len(piece)
                if allowed < 0:
                    raise DataError(
                        f"{archive}: {name!r} unpacks to more bytes than allowed; it is not what it should be"
                    )
                file.write(piece)
        names.append(inner)
    return list(dict.fromkeys(names))


def _inside(archive: Path, name: str) -> PurePosixPath:
    """``name`` as a relative path without any way out."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or any(c in name for c in "\\:\0") or not path.parts:
        raise DataError(f"{archive}: the name {name!r} leads out of the folder; do not use this archive")
    return path


def _magic(archive: Path) -> bytes:
    with archive.open("rb") as file:
        return file.read(2)


def _zip_members(archive: Path, allowed: int) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise DataError(f"{archive}: {member.filename!r} is a link or a device; do not use this archive")
            if member.is_dir():
                _inside(archive, member.filename)
                continue
            if member.file_size > allowed:
                raise DataError(
                    f"{archive}: {member.filename!r} announces {member.file_size:,} bytes; more than allowed"
                )
            yield member.filename, opened.open(member)


def _tar_members(archive: Path, allowed: int) -> Iterator[tuple[str, IO[bytes]]]:
    opener = OPENERS.get(_magic(archive), open)
    with cast(IO[bytes], opener(archive, "rb")) as plain:
        stream = _Bounded(plain, allowed + (1 << 20) + allowed // 4, archive)  # headers and padding beside the content
        with tarfile.open(fileobj=cast(Any, stream), mode="r|") as opened:
            for member in opened:
                if member.isdir():
                    _inside(archive, member.name)
                elif member.isreg() and not member.issparse():
                    content = opened.extractfile(member)
                    assert content is not None
                    yield member.name, content
                else:
                    raise DataError(f"{archive}: {member.name!r} is a link or a device; do not use this archive")


class _Bounded:
    """A reader that ends a tar whose headers announce, or whose compression holds, more than is allowed."""

    def __init__(self, file: IO[bytes], allowed: int, archive: Path):
        self.file, self.left, self.archive = file, allowed, archive

    def read(self, size: int) -> bytes:
        if size < 0 or size > MAX_HEADER:
            raise DataError(f"{self.archive}: a header announces {size:,} bytes; do not use this archive")
        content = self.file.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise DataError(f"{self.archive} unpacks to more bytes than allowed; it is not what it should be")
        return content


def _move(archive: Path, names: list[PurePosixPath], beside: Path, folder: Path) -> list[Path]:
    real = folder.resolve()
    moved = []
    for name in names:
        target = folder / name
        if not target.parent.resolve().is_relative_to(real):
            raise DataError(f"{target} lies behind a link that leads out of {folder}; remove the link")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(beside / name, target)
        except OSError as error:
            raise DataError(f"{archive}: {target} cannot be written ({error.strerror})") from None
        moved.append(target)
    return moved
