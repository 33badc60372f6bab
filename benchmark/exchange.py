"""Results of several machines in one folder: joined directly, or through an archive that carries its own hashes.

What travels is the folder of every ended cell. What it is of no use elsewhere stays: the mark of the tracking server that
has it (the new place delivers it again with ``adlbench sync``), the work folder, and files that are half written.
A cell that is on both sides with another content is a conflict. Conflicts are reported and nothing is overwritten.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from adlbench.benchmark.errors import AdlbenchError
from adlbench.benchmark.records import read_record

FORMAT = "adlbench-records"
VERSION = 1
MANIFEST = "manifest.json"
LEFT_BEHIND = ("mlflow.json", "work")
CHECKPOINT = "checkpoint.pt"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same records give the same archive
CHUNK = 1 << 20


@dataclass
class Exchange:
    """What became of the cells, by their folder below ``runs/``."""

    copied: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    conflicts: dict[str, list[str]] = field(default_factory=dict)  # cell -> the files that differ


def merge(sources: Sequence[Path], into: Path) -> Exchange:
    """Copy the ended cells of all ``sources`` (results folders) into the results folder ``into``, which may exist.

    A cell appears in ``into`` whole or not at all. Raises AdlbenchError for a source that holds no runs.
    """
    found = Exchange()
    for source in sources:
        if not (source / "runs").is_dir():
            raise AdlbenchError(f"{source}: there is no folder runs/ in it; give a results folder")
        for cell in cells(source):
            _join(source / "runs" / cell, into / "runs" / cell, cell, found)
    return found


def cells(results_dir: Path) -> Iterator[str]:
    """The folders of ended cells, relative to ``runs/``, in a stable order. Raises AdlbenchError for a damaged record."""
    root = results_dir / "runs"
    for path in sorted(root.glob("**/record.json")):
        read_record(path.parent)
        yield path.parent.relative_to(root).as_posix()


def travelling(folder: Path, checkpoints: bool = True) -> list[str]:
    """The files of a cell that are copied, relative to its folder. Raises AdlbenchError for a link, which may lead anywhere."""
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in LEFT_BEHIND or any(part.startswith(".") for part in name.parts):
            continue
        if path.is_symlink():
            raise AdlbenchError(f"{path} is a link; put the file itself there")
        if path.is_file() and (checkpoints or name.name != CHECKPOINT):
            names.append(name.as_posix())
    return names


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differing(first: Path, second: Path) -> list[str]:
    """Files that are in only one of two cell folders or differ, checkpoints left out where one side has none."""
    here, there = set(travelling(first)), set(travelling(second))
    alike = {name for name in here & there if sha256(first / name) == sha256(second / name)}
    return sorted((here | there) - alike - ({CHECKPOINT} & (here ^ there)))


def _join(source: Path, target: Path, cell: str, found: Exchange) -> None:
    if target.exists() and not (target / "record.json").exists():
        found.conflicts[cell] = ["record.json"]  # begun here, and perhaps still running
    elif target.exists():
        different = differing(source, target)
        if different:
            found.conflicts[cell] = different
        else:
            found.same.append(cell)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".merge-") as folder:
            whole = Path(folder) / target.name
            for name in travelling(source):
                (whole / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, whole / name)
            os.rename(whole, target)
        found.copied.append(cell)


# ------------------------------------------------------------------------------------------------------------- archives
def export_records(results_dir: Path, archive: Path, checkpoints: bool = True) -> int:
    """Write the ended cells to a zip file with a manifest of sha256 sums. Returns their number."""
    chosen = list(cells(results_dir))
    if not chosen:
        raise AdlbenchError(f"{results_dir}: no ended cells below runs/; give another --results-dir")
    temporary = archive.with_name(f".{archive.name}.{os.getpid()}.tmp")
    manifest: dict[str, dict[str, object]] = {}
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            for cell in chosen:
                folder = results_dir / "runs" / cell
                for name in travelling(folder, checkpoints):
                    path = folder / name
                    member = f"runs/{cell}/{name}"
                    manifest[member] = {"sha256": sha256(path), "size": path.stat().st_size}
                    with file.open(_info(member), "w", force_zip64=True) as out, open(path, "rb") as source:
                        shutil.copyfileobj(source, out, CHUNK)
            content = {"format": FORMAT, "version": VERSION, "cells": len(chosen), "files": manifest}
            file.writestr(_info(MANIFEST), json.dumps(content, indent=1))
        os.replace(temporary, archive)
    finally:
        temporary.unlink(missing_ok=True)
    return len(chosen)


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info


def import_records(archive: Path, results_dir: Path) -> Exchange:
    """Verify every file of an archive against its manifest, then join its cells with ``results_dir``.

    Raises AdlbenchError, and leaves ``results_dir`` as it was, when a file is missing, surplus, damaged, or would lie
    outside of ``runs/``.
    """
    results_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=results_dir, prefix=".import-") as folder:
        try:
            with zipfile.ZipFile(archive) as file:
                _unpack(file, archive, Path(folder))
        except FileNotFoundError as error:
            raise AdlbenchError(f"{archive}: there is no such file") from error
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise AdlbenchError(f"{archive}: not a whole archive ({error}); copy it again") from error
        return merge([Path(folder)], results_dir)


def _unpack(file: zipfile.ZipFile, archive: Path, folder: Path) -> None:
    names = file.namelist()
    if MANIFEST not in names:
        raise AdlbenchError(f"{archive}: no {MANIFEST} in it; only what `adlbench export-records` wrote can be read")
    try:
        manifest = json.loads(file.read(MANIFEST))
        known = manifest["format"] == FORMAT and manifest["version"] == VERSION
        files = {str(name): (str(entry["sha256"]), int(entry["size"])) for name, entry in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AdlbenchError(
            f"{archive}: its {MANIFEST} cannot be read ({error!r}); export the records again"
        ) from error
    if not known:
        raise AdlbenchError(
            f"{archive}: its {MANIFEST} is not of {FORMAT} version {VERSION}; use the adlbench that wrote it"
        )
    surplus = sorted(set(names) - set(files) - {MANIFEST})
    missing = sorted(set(files) - set(names))
    if surplus or missing or len(set(names)) != len(names):
        what = (
            f"{missing[0]} is missing"
            if missing
            else f"{(surplus or names)[0]} is not in its {MANIFEST}, or twice there"
        )
        raise AdlbenchError(f"{archive}: {what}; copy it again")
    for name, (expected, size) in files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or path.parts[:1] != ("runs",) or ".." in path.parts or "\\" in name:
            raise AdlbenchError(f"{archive}: {name!r} would lie outside of runs/; do not trust this archive")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, left = hashlib.sha256(), size
        with file.open(name) as source, open(target, "wb") as out:
            while chunk := source.read(min(CHUNK, left + 1)):  # never more than the manifest announces, and one byte
                left -= len(chunk)
                if left < 0:
                    break
                digest.update(chunk)
                out.write(chunk)
        if left or digest.hexdigest() != expected:
            raise AdlbenchError(f"{archive}: {name} is damaged (its sha256 is not the manifest's); copy it again")
