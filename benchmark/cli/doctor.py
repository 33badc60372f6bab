"""Say what is missing on this machine and the command that mends it."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import sys

from adlbench.benchmark.cli.common import print_json

OPTIONAL = {
    "numba": (
        "kernels compiled for a CPU, with which many methods train twice as fast",
        "pip install 'adlbench[fast]'",
    ),
    "ray": ("cells on several machines", "pip install 'adlbench[ray]'"),
    "submitit": ("cells as Slurm jobs", "pip install 'adlbench[slurm]'"),
    "psycopg": ("a PostgreSQL tracking server", "pip install 'adlbench[server]'"),
    "pynvml": ("energy of NVIDIA GPUs", "pip install 'adlbench[gpu]'"),
    "MinkowskiEngine": (
        "a second backend of the sparse convolutions; until then the one in torch is used, on a GPU too",
        "make minkowski (docs/minkowski-engine.md; also what to do for CUDA)",
    ),
}


def configure(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    import torch

    from adlbench.benchmark.api import data_cache, data_root
    from adlbench.benchmark.config import Catalog, ConfigError

    checks: list[dict[str, object]] = []

    def check(name: str, ok: bool, detail: str, remedy: str = "", needed: bool = True) -> None:
        checks.append({"check": name, "ok": ok, "detail": detail, "remedy": "" if ok else remedy, "needed": needed})

    check("python", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11 or newer")
    for requirement in importlib.metadata.requires("adlbench") or []:
        if ";" in requirement:
            continue
        package = requirement.split(">")[0].split("=")[0].split("[")[0].strip()
        try:
            check(package, True, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            check(package, False, "not installed", f"pip install -c constraints.txt '{package}'")
    gpu = torch.cuda.is_available()
    check(
        "accelerator",
        gpu,
        torch.cuda.get_device_name() if gpu else "none: cells run on the CPU",
        "a CUDA device and driver",
        False,
    )
    root = data_root()
    check("data root", root.is_dir(), str(root), "set ADLBENCH_DATA to the folder of your datasets", False)
    writable = (
        os.access(data_cache() if data_cache().exists() else data_cache().parent, os.W_OK)
        or not data_cache().parent.exists()
    )
    check("data cache", writable, str(data_cache()), "make it writable, or set XDG_CACHE_HOME")
    problems: list[str] = []
    catalog = Catalog()
    for group in ("task", "dataset", "method", "suite", "fidelity", "executor"):
        for name in catalog.names(group):
            try:
                catalog.spec(group, name)
            except ConfigError as error:
                problems += error.problems
    check(
        "configuration", not problems, "every YAML composes" if not problems else problems[0], "mend the file it names"
    )
    for module, (use, remedy) in OPTIONAL.items():
        found = importlib.util.find_spec(module) is not None
        check(module, found, f"for {use}", remedy, needed=False)
    if not gpu and importlib.util.find_spec("numba"):
        tiles = importlib.import_module("adlbench.methods.nn.amx_numba").available()
        use = "for products in bfloat16 on the processor's tile unit"
        check("Intel AMX", tiles, use, "a processor that has it; until then torch multiplies", needed=False)
    failed = any(not entry["ok"] and entry["needed"] for entry in checks)
    if args.json:
        print_json({"ok": not failed, "checks": checks})
    else:
        for entry in checks:
            mark = "ok     " if entry["ok"] else ("MISSING" if entry["needed"] else "absent ")
            remedy = f"  -> {entry['remedy']}" if entry["remedy"] else ""
            print(f"{mark} {entry['check']:<16} {entry['detail']}{remedy}")
    return 1 if failed else 0
