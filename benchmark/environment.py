"""What a cell ran on: packages, processor, accelerator, memory, energy, code version."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-learn",
    "scikit-image",
    "torch-fidelity",
    "lpips",
    "MinkowskiEngine",
)


@cache
def cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def hardware_class(device: torch.device, devices: int = 1) -> str:
    """Speeds are compared only inside one class: the accelerator's name, or the processor's with the threads in use."""
    times = f"{devices} x " if devices > 1 else ""
    if device.type == "cuda":
        return times + torch.cuda.get_device_name(device)
    return f"{times}{cpu_model()}, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


@cache
def packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe(device: torch.device) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }


@cache
def code_version() -> dict[str, Any]:
    """Version, git commit and whether the tree differs from it; the commit is None outside a checkout."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD") if (root / ".git").exists() else None
    dirty = bool(git("status", "--porcelain", "--untracked-files=no")) if commit else None
    return {"version": importlib.metadata.version("adlbench"), "commit": commit, "dirty": dirty}


def reset_peak_memory(device: torch.device) -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> tuple[float | None, float | None]:
    """(resident, on the device) in MB since ``reset_peak_memory``."""
    resident = None
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                resident = int(line.split()[1]) / 1024
    except OSError:
        pass
    return resident, torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


class EnergyMeter:
    """Joules that the accelerator's driver counted since the meter was made; never an estimate."""

    def __init__(self, device: torch.device):
        self._handle = None
        if device.type == "cuda":
            try:
                import pynvml

                pynvml.nvmlInit()
                self._handle = pynvml.nvmlDeviceGetHandleByIndex(device.index or 0)
                self._nvml, self._start = pynvml, pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
            except Exception:  # no driver, no permission, no counter: then there is no figure
                self._handle = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is used inside does not count."""
        before = self.joules()
        yield
        if before is not None:
            self._start += int(1e3 * ((self.joules() or before) - before))

    def joules(self) -> float | None:
        if self._handle is None:
            return None
        return (self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) - self._start) / 1e3
