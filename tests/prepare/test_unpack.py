"""Archives: what is in them arrives, and nothing arrives anywhere else."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from adlbench.benchmark.api import DataError
from adlbench.benchmark.prepare import unpack as module
from adlbench.benchmark.prepare.unpack import unpack

FILES = {"set/a.txt": b"a" * 1000, "set/deep/er/b.bin": bytes(range(256)), "c": b""}


def make_zip(path: Path, files: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            archive.writestr(member, content, zipfile.ZIP_DEFLATED)
    return path


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w:gz", **member: object) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in member.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return path


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["zip", "w:", "w:gz", "w:bz2", "w:xz"])
def test_what_is_in_it_arrives(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "archive"
    archive = make_zip(path, FILES) if kind == "zip" else make_tar(path, FILES, kind)
    for _ in range(2):  # again: the same
        found = unpack(archive, tmp_path / "out")
        assert everything(tmp_path / "out") == FILES
        assert sorted(str(p.relative_to(tmp_path / "out")) for p in found) == sorted(FILES)
    assert not list((tmp_path / "out").glob(".unpacking*"))


def test_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "out" / "set").mkdir(parents=True)
    (tmp_path / "out" / "set" / "mine").write_bytes(b"mine")
    unpack(make_zip(tmp_path / "x.zip", FILES), tmp_path / "out")
    assert everything(tmp_path / "out") == FILES | {"set/mine": b"mine"}


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/tmp/adlbench-x", "..", "C:/x", "a\\..\\x"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    make = make_zip if kind == "zip" else make_tar
    archive = make(tmp_path / "archive", {"good": b"x", name: b"evil"})
    with pytest.raises(DataError, match="leads out of the folder") as error:
        unpack(archive, tmp_path / "in" / "out")
    assert str(archive) in str(error.value)
    assert everything(tmp_path) == {"archive": archive.read_bytes()}  # not even the good one
    assert not Path("/tmp/adlbench-x").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    archive = make_tar(tmp_path / "x.tar", {"link": b""}, type=kind, linkname="/etc/passwd")
    with pytest.raises(DataError, match="'link' is a link or a device"):
        unpack(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, kind: int) -> None:
    archive = make_zip(tmp_path / "x.zip", {"link": b"/etc/passwd"}, mode=kind | 0o777)
    with pytest.raises(DataError, match="'link' is a link or a device"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_nothing_is_written_through_a_link_that_is_there(tmp_path: Path, kind: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "set").symlink_to(tmp_path / "elsewhere")
    archive = (make_zip if kind == "zip" else make_tar)(tmp_path / "archive", {"set/a.txt": b"x"})
    with pytest.raises(DataError, match="behind a link that leads out"):
        unpack(archive, tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("kind", ["zip", "w:gz", "w:xz"])
def test_a_bomb_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_ALLOWANCE", 1 << 20)
    files = {"zeros": b"\0" * (8 << 20)}
    archive = make_zip(tmp_path / "x", files) if kind == "zip" else make_tar(tmp_path / "x", files, kind)
    assert archive.stat().st_size < 20_000
    with pytest.raises(DataError, match=r"more (bytes )?than allowed"):
        unpack(archive, tmp_path / "out")
    assert everything(tmp_path / "out") == {}


def test_a_size_that_is_a_lie_is_not_believed(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", {"zeros": b"\0" * 100_000})
    content = archive.read_bytes().replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    archive.write_bytes(content)
    with pytest.raises(DataError):
        unpack(archive, tmp_path / "out", max_bytes=1000)
    assert everything(tmp_path / "out") == {}


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 4 << 30
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + b"\0" * (1 << 20)))
    with pytest.raises(DataError, match=r"x.tar.gz"):
        unpack(path, tmp_path / "out")


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MEMBERS", 2)
    with pytest.raises(DataError, match="more than 2 files"):
        unpack(make_zip(tmp_path / "x.zip", FILES), tmp_path / "out")


def damaged(tmp_path: Path) -> dict[str, bytes]:
    zipped = make_zip(tmp_path / "a", FILES).read_bytes()
    tarred = make_tar(tmp_path / "b", FILES).read_bytes()
    plain = make_tar(tmp_path / "c", FILES, "w:").read_bytes()
    return {
        "empty": b"",
        "text": b"<html>404</html>" * 100,
        "zip cut off": zipped[:-30],
        "zip with other bytes": zipped[:40] + b"\0\0\0\0" + zipped[44:],
        "zip that is encrypted": zipped.replace(b"PK\1\2\x14\x03\x14\0\0\0", b"PK\1\2\x14\x03\x14\0\1\0"),
        "tar.gz cut off": tarred[: len(tarred) // 2],
        "tar.gz with other bytes": tarred[:60] + b"\0\0\0\0" + tarred[64:],
        "tar cut off": plain[:1500],
        "tar with another checksum": plain[:150] + b"9" + plain[151:],
    }


CASES = ["empty", "text", "zip cut off", "zip with other bytes", "zip that is encrypted"]
CASES += ["tar.gz cut off", "tar.gz with other bytes", "tar cut off", "tar with another checksum"]


@pytest.mark.parametrize("case", CASES)
def test_damaged_archives(tmp_path: Path, case: str) -> None:
    path = tmp_path / "archive.bin"
    path.write_bytes(damaged(tmp_path)[case])
    with pytest.raises(DataError, match=r"archive\.bin"):
        unpack(path, tmp_path / "out")
    assert everything(tmp_path / "out") == {}


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        unpack(tmp_path / "none.zip", tmp_path)


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "x.zip", {"a": b"1", "a/b": b"2"})
    with pytest.raises(DataError, match=r"x\.zip"):
        unpack(archive, tmp_path / "out")
