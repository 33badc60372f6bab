"""The sha256 of a dataset's source files: noted when it was prepared, compared ever after."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from adlbench.benchmark.api import DataError, data_cache, data_root, file_sha256
from adlbench.benchmark.records import write_json


@dataclass(frozen=True)
class Note:
    sha256: str
    size: int  # bytes
    modified_ns: int


@cache
def _adapter() -> TypeAdapter[dict[str, Note]]:
    return TypeAdapter(dict[str, Note])


class Manifest:
    """One file of notes for each dataset and data root, in the user's cache: a shared data root may be read-only."""

    def __init__(self, dataset: str):
        self.root = data_root().absolute()
        root_name = hashlib.sha256(str(self.root).encode()).hexdigest()[:8]
        self.path = data_cache() / "manifests" / f"{dataset}-{root_name}.json"
        self.notes: dict[str, Note] = {}
        try:
            self.notes = _adapter().validate_json(self.path.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValidationError):
            raise DataError(f"{self.path} cannot be read; delete it and run `adlbench data prepare` again") from None

    def digest(self, path: Path) -> str:
        """The file's sha256: the noted one while size and time of change are as noted, else computed."""
        note = self.notes.get(self._key(path))
        if note is not None and path.is_file():
            status = path.stat()
            if (status.st_size, status.st_mtime_ns) == (note.size, note.modified_ns):
                return note.sha256
        return file_sha256(path)

    def damaged(self, paths: Sequence[Path]) -> list[str]:
        """A line for each noted file that is gone or has other bytes. Reads every file."""
        problems = []
        present = {self._key(path): path for path in paths}
        for key, note in sorted(self.notes.items()):
            path = present.get(key, self.root / key)
            if not path.is_file():
                problems.append(f"{path} is gone since it was prepared")
                continue
            found = file_sha256(path)
            if found != note.sha256:
                problems.append(
                    f"{path} has changed since it was prepared: {path.stat().st_size:,} bytes with sha256 {found[:16]}…, "
                    f"noted were {note.size:,} with {note.sha256[:16]}…"
                )
        return problems

    def write(self, paths: Sequence[Path]) -> None:
        """Note what ``paths`` hold now, in place of all earlier notes."""
        notes = {}
        for path in paths:
            digest, status = self.digest(path), path.stat()
            notes[self._key(path)] = Note(digest, status.st_size, status.st_mtime_ns)
        self.notes = notes
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {key: asdict(note) for key, note in sorted(notes.items())})

    def _key(self, path: Path) -> str:
        absolute = path.absolute()
        return str(absolute.relative_to(self.root) if absolute.is_relative_to(self.root) else absolute)
