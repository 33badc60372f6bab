"""Damages whole files at random and reads them: a reader returns or raises DataError, in bounded time and memory.

    python tests/fuzz_formats.py --minutes 10 [--seed 0] [--only NAME ...]

Every ``FORMATS`` list of a module ``tests/datasets/formats_*.py`` takes part. A reader that does anything else (another
exception, more than ten seconds, more than 2 GiB, a crash of the process) ends the run with status 1; the damaged files
are then in the folder that is printed.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

SECONDS, BYTES = 10, 2 << 30  # that one read may take
NUMBERS = [0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF]
WORDS = [
    b"-1",
    b"0",
    b"nan",
    b"inf",
    b"1e999",
    b"99999999999999999999",
    b"../../x",
    b"/etc/passwd",
    b"\xff\xfe",
    b"",
    b"null",
]


def formats() -> list[Any]:
    folder = Path(__file__).parent / "datasets"
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    names = sorted(path.stem for path in folder.glob("formats_*.py"))
    return [form for name in names for form in importlib.import_module(name).FORMATS]


def damage(content: bytes, random_: random.Random) -> bytes:
    """One to four random changes."""
    data = bytearray(content)
    for _ in range(random_.choice([1, 1, 1, 2, 4])):
        place = random_.randrange(len(data) + 1)
        early = random_.randrange(min(len(data), 64) + 1)  # headers are worth more than their share
        at = random_.choice([place, early])
        kind = random_.randrange(9)
        if kind == 0:
            del data[at:]
        elif kind == 1 and at < len(data):
            data[at] ^= 1 << random_.randrange(8)
        elif kind == 2:
            data[at : at + random_.randrange(1, 9)] = random_.randbytes(random_.randrange(1, 9))
        elif kind == 3:
            order, size = random_.choice("<>"), random_.choice("HIQ")
            number = random_.choice(NUMBERS) & ((1 << 8 * struct.calcsize(size)) - 1)
            data[at : at + struct.calcsize(size)] = struct.pack(order + size, number)
        elif kind == 4:
            del data[at : at + random_.randrange(1, 64)]
        elif kind == 5:
            data[at:at] = data[place : place + random_.randrange(1, 256)]
        elif kind == 6:  # a number or a word of a text file
            data[at : at + random_.randrange(0, 5)] = random_.choice(WORDS)
        elif kind == 7:
            size = random_.choice([2, 4, 8])  # another byte order
            data[at : at + size] = data[at : at + size][::-1]
        else:
            data += random_.randbytes(random_.randrange(1, 64))
    return bytes(data)


def read_or_refused(read: Callable[[Path], Any], path: Path) -> Any:
    """What ``read(path)`` returns; None where it raises a DataError that names the file."""
    from adlbench.benchmark.api import DataError

    try:
        return read(path)
    except DataError as error:
        if str(path) not in str(error):
            raise
        return None


def run_one(form: Any, seed: int, folder: Path) -> str | None:
    """What went wrong with the files of this seed, or None. The damaged files stay in ``folder``."""
    from adlbench.benchmark.api import DataError

    random_ = random.Random(f"{form.name} {seed}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    victim = random_.choice(sorted(form.files))
    for name, content in form.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(damage(content, random_) if name == victim else content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            form.read(folder)
    except DataError as error:
        if "\n" in str(error) or len(str(error)) > 2000:
            return f"the message is not one line: {str(error)[:300]!r}"
        if str(folder) not in str(error) and not any(name in str(error) for name in form.files):
            return f"the message names no file: {error}"
    except MemoryError:
        return f"more than {BYTES >> 30} GiB\n{traceback.format_exc()}"
    except TimeoutError:
        return f"more than {SECONDS} seconds\n{traceback.format_exc()}"
    except BaseException:
        return traceback.format_exc()
    return None


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError


def work(names: list[str], first_seed: int, end: float, folder: Path, counts: Any, status: Any) -> None:
    """Rounds over the formats until ``end``. Ends early, with ``status`` 1, at the first failure."""
    chosen = [form for form in formats() if not names or form.name in names]
    for form in chosen:
        form.read(_written(form, folder))  # imports what it needs; and whole files must be read
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, _too_long)
    seed = first_seed
    while time.time() < end:
        for index, form in enumerate(chosen):
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            problem = run_one(form, seed, folder)
            signal.setitimer(signal.ITIMER_REAL, 0)
            counts[index] += 1
            if problem:
                print(f"\n{form.name}, seed {seed}, files in {folder}:\n{problem}", flush=True)
                status.value = 1
                return
        seed += 1


def _written(form: Any, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in form.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    names = [form.name for form in formats() if not args.only or form.name in args.only]
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    context = multiprocessing.get_context("spawn")  # a reader that kills its process is found out
    counts, status = context.Array("l", len(names)), context.Value("i", 0)
    worker = context.Process(
        target=work, args=(names, args.seed, time.time() + 60 * args.minutes, folder / "files", counts, status)
    )
    worker.start()
    worker.join()
    for name, count in zip(names, counts):
        print(f"{name:<20} {count:>8,} damaged files")
    if worker.exitcode or status.value:
        print(f"failed (exit code of the reading process: {worker.exitcode}); the files are in {folder}")
        return 1
    shutil.rmtree(folder)
    print(f"{sum(counts):,} in {args.minutes:g} minutes: every one was read or is a DataError")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
