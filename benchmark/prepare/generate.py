"""Makes generated datasets, several at once: each instance in whichever process is free."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

from adlbench.benchmark.api import AdlbenchError
from adlbench.benchmark.config import allow, allowed, build_dataset
from adlbench.benchmark.execution.base import usable_cores
from adlbench.benchmark.execution.process import set_threads
from adlbench.benchmark.specs import DatasetSpec


@dataclass(frozen=True)
class Made:
    dataset: str
    instance: str
    error: str | None
    done: int  # instances so far, of
    total: int


def generate(specs: Sequence[DatasetSpec], processes: int | None = None) -> Iterator[Made]:
    """Load both splits of every instance, which leaves them in the cache, in as many processes as there are cores.

    Sets that share their arrays wait for each other at the cache's lock, so no work is done twice.
    """
    jobs = [(spec, instance) for spec in specs for instance in build_dataset(spec).instances()]
    if not jobs:
        return
    context = multiprocessing.get_context("spawn")  # not a fork server: that keeps the environment it was started in
    workers = min(processes or usable_cores(), len(jobs))
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(allowed(),)) as pool:
        futures = {pool.submit(_make, spec, instance): (spec.name, instance) for spec, instance in jobs}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                yield Made(*futures[future], future.result(), done, len(jobs))
        finally:
            pool.shutdown(cancel_futures=True)


def _start(packages: tuple[str, ...]) -> None:
    allow(packages)
    set_threads(1)


def _make(spec: DatasetSpec, instance: str) -> str | None:
    dataset = build_dataset(spec)
    try:
        for split in ("train", "test"):
            dataset.load(instance, split)
    except AdlbenchError as error:
        return str(error)
    return None
