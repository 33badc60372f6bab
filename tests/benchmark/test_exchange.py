"""Results folders are joined without loss, doubling or overwriting; archives are verified before they are believed."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from tests_support import toy

from adlbench.benchmark.api import AdlbenchError
from adlbench.benchmark.cell import run_cell
from adlbench.benchmark.cli.main import main
from adlbench.benchmark.exchange import MANIFEST, export_records, import_records, merge
from adlbench.benchmark.records import find_records
from adlbench.benchmark.tracking import sync


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two results folders: seeds 0 and 1 on one, seeds 1 (copied, so the same) and 2 on the other."""
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    for folder, seed in ((first, 0), (first, 1), (second, 2)):
        cell = toy(seed=seed)
        run_cell(cell, cell.folder(folder))
    cell = toy(seed=1)
    shutil.copytree(cell.folder(first), cell.folder(second))
    (cell.folder(second) / "mlflow.json").write_text('{"run_id": "elsewhere"}')
    return first, second


def files(results: Path) -> dict[str, bytes]:
    return {path.relative_to(results).as_posix(): path.read_bytes() for path in results.rglob("*") if path.is_file()}


def seeds(results: Path) -> list[int]:
    return [record.seed for _, record in find_records(results)]


def test_merged_folder_has_every_cell_once(machines: tuple[Path, Path], tmp_path: Path) -> None:
    found = merge(machines, tmp_path / "all")
    assert (len(found.copied), len(found.same), found.conflicts) == (3, 1, {})
    assert seeds(tmp_path / "all") == [0, 1, 2]
    assert not list((tmp_path / "all").rglob("mlflow.json"))  # the other server's mark would keep it from this one
    again = merge(machines, tmp_path / "all")
    assert (again.copied, len(again.same)) == ([], 4)
    assert sync(tmp_path / "all") == 3


def test_a_conflict_is_shown_and_not_overwritten(
    machines: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merge(machines[:1], tmp_path / "all")
    cell = toy(seed=1).folder(tmp_path / "all")
    record = json.loads((cell / "record.json").read_text())
    record["metrics"]["top1"] = 0.123
    (cell / "record.json").write_text(json.dumps(record))
    before = files(tmp_path / "all")
    assert main(["merge", str(machines[1]), "--into", str(tmp_path / "all")]) == 1
    printed = capsys.readouterr().out
    assert f"CONFLICT {cell.relative_to(tmp_path / 'all' / 'runs')}: record.json" in printed
    after = files(tmp_path / "all")
    assert {name: after[name] for name in before} == before
    assert seeds(tmp_path / "all") == [0, 1, 2]


def test_a_cell_that_runs_here_is_left_alone(machines: tuple[Path, Path], tmp_path: Path) -> None:
    cell = toy(seed=0).folder(tmp_path / "all")
    cell.mkdir(parents=True)
    (cell / "cell.json").write_text("{}")
    found = merge(machines[:1], tmp_path / "all")
    assert list(found.conflicts.values()) == [["record.json"]]
    assert [path.name for path in cell.iterdir()] == ["cell.json"]


def test_archive_carries_everything(machines: tuple[Path, Path], tmp_path: Path) -> None:
    assert export_records(machines[1], tmp_path / "a.zip") == 2
    assert export_records(machines[1], tmp_path / "b.zip") == 2
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    found = import_records(tmp_path / "a.zip", tmp_path / "there")
    assert len(found.copied) == 2
    sent = {name: data for name, data in files(machines[1]).items() if not name.endswith("mlflow.json")}
    assert files(tmp_path / "there") == sent
    assert len(import_records(tmp_path / "a.zip", tmp_path / "there").same) == 2
    export_records(machines[1], tmp_path / "small.zip", checkpoints=False)
    assert len(import_records(tmp_path / "small.zip", tmp_path / "there").same) == 2  # nothing that is there differs


def rewritten(archive: Path, target: Path, change: str) -> Path:
    """The archive with one thing changed."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as out:
        manifest = json.loads(source.read(MANIFEST))
        victim = next(name for name in manifest["files"] if name.endswith("items.npz"))
        for name in source.namelist():
            data = source.read(name)
            if name == victim and change == "missing":
                continue
            if name == victim and change == "flipped":
                data = bytes([data[0] ^ 1]) + data[1:]
            if name == victim and change == "longer":
                data = data + b"x" * 5_000_000
            if name == MANIFEST:
                if change == "no manifest":
                    continue
                if change == "outside":
                    manifest["files"]["runs/../../x"] = {"sha256": "0", "size": 1}
                if change == "absolute":
                    manifest["files"]["/tmp/x"] = {"sha256": "0", "size": 1}
                if change == "version":
                    manifest["version"] = 99
                data = b"[]" if change == "garbled" else json.dumps(manifest).encode()
            out.writestr(name, data)
        if change == "surplus":
            out.writestr("runs/extra.txt", b"hello")
        if change in ("outside", "absolute"):
            out.writestr("runs/../../x" if change == "outside" else "/tmp/x", b"h")
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "is missing"),
        ("flipped", "is damaged"),
        ("longer", "is damaged"),
        ("no manifest", "only what"),
        ("outside", "outside of runs/"),
        ("absolute", "outside of runs/"),
        ("version", "version 1"),
        ("garbled", "cannot be read"),
        ("surplus", "is not in its manifest"),
    ],
)
def test_a_damaged_archive_changes_nothing(
    machines: tuple[Path, Path], tmp_path: Path, change: str, message: str
) -> None:
    export_records(machines[1], tmp_path / "a.zip")
    archive = rewritten(tmp_path / "a.zip", tmp_path / "bad.zip", change)
    with pytest.raises(AdlbenchError, match=message):
        import_records(archive, tmp_path / "there")
    assert files(tmp_path / "there") == {}
    assert not (tmp_path / "x").exists()


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "half.zip").write_bytes(b"PK\x03\x04 and no more")
    for name, message in (("half.zip", "not a whole archive"), ("none.zip", "no such file")):
        with pytest.raises(AdlbenchError, match=message):
            import_records(tmp_path / name, tmp_path / "there")
    with pytest.raises(AdlbenchError, match="no ended cells"):
        export_records(tmp_path / "there", tmp_path / "a.zip")
    with pytest.raises(AdlbenchError, match="no folder runs/"):
        merge([tmp_path], tmp_path / "there")


def test_links_do_not_travel(machines: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(machines[0], tmp_path / "linked")
    (toy(seed=0).folder(tmp_path / "linked") / "secret.txt").symlink_to("/etc/hostname")
    with pytest.raises(AdlbenchError, match="is a link"):
        merge([tmp_path / "linked"], tmp_path / "all")
