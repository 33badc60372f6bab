"""Makes generated datasets, several at once: each split in whichever process is free."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import zip_longest

from adlbench.benchmark.api import AdlbenchError
from adlbench.benchmark.config import allow, allowed, build_dataset
from adlbench.benchmark.execution.base import usable_cores
from adlbench.benchmark.execution.process import set_threads
from adlbench.benchmark.specs import DatasetSpec


@dataclass(frozen=True)
class Made:
    dataset: str
    instance: str
    split: str
    error: str | None
    done: int  # splits so far, of
    total: int


def generate(specs: Sequence[DatasetSpec], processes: int | None = None) -> Iterator[Made]:
    """Load every split of every instance, which leaves it in the cache, in as many processes as there are cores.

    Sets that share their arrays wait for each other at the cache's lock, so no work is done twice.
    """
    jobs = [
        (spec, instance, split)
        for spec in specs
        for instance in build_dataset(spec).instances()
        for split in ("train", "test")
    ]
    if not jobs:
        return
    # Sets that share arrays are neighbours by name. The two halves of the list take turns, so that they are seldom made at once.
    half = (len(jobs) + 1) // 2
    jobs = [job for pair in zip_longest(jobs[:half], jobs[half:]) for job in pair if job is not None]
    context = multiprocessing.get_context("spawn")  # not a fork server: that keeps the environment it was started in
    workers = min(processes or usable_cores(), len(jobs))
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(allowed(),)) as pool:
        futures = {pool.submit(_make, *job): (job[0].name, *job[1:]) for job in jobs}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                yield Made(*futures[future], future.result(), done, len(jobs))
        finally:
            pool.shutdown(cancel_futures=True)


def _start(packages: tuple[str, ...]) -> None:
    allow(packages)
    set_threads(1)


def _make(spec: DatasetSpec, instance: str, split: str) -> str | None:
    try:
        build_dataset(spec).load(instance, split)
    except AdlbenchError as error:
        return str(error)
    return None
